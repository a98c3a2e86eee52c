"""The schema's errors as issues: our words, the place in the file, a repair."""

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from mimetic.config.base import VALIDATION_ERROR
from mimetic.config.errors import FilePosition, Issue, clipped
from mimetic.config.registry import registered
from mimetic.config.suggest import likeness, listed, nearest
from mimetic.config.text.tree import Map, find, shown
from mimetic.recipe.reading.advice import unknown_key
from mimetic.recipe.reading.grammar import Place, type_of
from mimetic.recipe.reading.location import Fault, follow
from mimetic.recipe.reading.wording import KINDS, in_words, name_in_words

INCOMPLETE = "missing", "union_tag_not_found", "too_short"
"""Types of errors that an arm may still mend, so that they do not count in what all arms share."""

_SURE = 0.8

_FAMILIES: dict[Any, str] = {
    "init": "an initializer type",
    "covariance": "a covariance type",
    "scale": "a scale type",
    "model": "a model type",
    "surgery": "a surgery type",
    "data": "a data type",
    "augment": "an augmentation type",
    "optimizer": "an optimizer type",
    "schedule": "a schedule type",
}


def issues_of(error: ValidationError, tree: Map, root: Place, *, complete: bool = True) -> list[Issue]:
    """Return the errors of a validation as issues.

    Args:
        error: What the schema found.
        tree: The tree that was validated.
        root: What the language allows at its top.
        complete: False for what all arms share, where an arm may give what is missing.
    """
    faults = [follow(found, tree, root) for found in error.errors(include_url=False)]
    issues = [_issue(f) for f in faults if f.choice is None and (complete or not _may_be_mended(f))]
    choices = dict.fromkeys(f.choice for f in faults if f.choice is not None)
    for choice in choices:
        issues += _of_several_forms([f for f in faults if f.choice == choice])
    return issues


def _of_several_forms(faults: list[Fault]) -> list[Issue]:
    """Return the issues of a value that fits none of the forms it may have.

    Where one form fits the value's kind, only what that form says is told; else what all of them expect.
    """
    nearest_form = [f for f in faults if f.error["type"] not in KINDS or f.spot != faults[0].spot]
    deepest = max((len(f.spot.path) for f in faults), default=0)
    if nearest_form:
        return [_issue(f) for f in nearest_form if len(f.spot.path) == deepest]
    expected = " or ".join(dict.fromkeys(in_words(f)[0].partition(", found")[0] for f in faults))
    message = f"{expected.replace(' or expected ', ' or ')}, found {shown(faults[0].node)}"
    hints = [hint for f in faults if (hint := in_words(f)[1]) is not None]
    return [Issue(message, faults[0].spot.path, faults[0].spot.value, hints[0] if hints else None)]


def _may_be_mended(fault: Fault) -> bool:
    kind = fault.error["type"]
    return kind in INCOMPLETE or (kind == VALIDATION_ERROR and isinstance(fault.node, Map))


def _issue(fault: Fault) -> Issue:
    kind = fault.error["type"]
    if kind == "extra_forbidden":
        return _unknown(fault)
    if fault.rest[-1:] == ("[key]",):
        message, hint = name_in_words(str(fault.error["loc"][-2]))
        return Issue(message, fault.spot.path, fault.spot.start, hint)
    if kind == VALIDATION_ERROR:
        return _mistake(fault)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _type(fault)
    message, hint = in_words(fault)
    return Issue(message, fault.spot.path, _mark(fault), hint)


def _mark(fault: Fault) -> FilePosition | None:
    if fault.error["type"] == "missing" and isinstance(fault.node, Map):
        return fault.node.here.value
    return fault.spot.value


def _unknown(fault: Fault) -> Issue:
    key = str(fault.rest[-1])
    spot = fault.node.spots.get(key, fault.spot) if isinstance(fault.node, Map) else fault.spot
    hint = unknown_key(key, fault.kind, fault.spot.path)
    return Issue(f"unknown key `{clipped(key)}`", spot.path, spot.start, hint)


def _mistake(fault: Fault) -> Issue:
    message, at, hint = fault.limits["message"], fault.limits["at"], fault.limits["hint"]
    # A map that was changed by a later layer was right before: the change is at fault.
    spot = fault.node.last if isinstance(fault.node, Map) and not fault.rest else fault.spot
    found = find(fault.node, at) if at else None
    spot = spot if found is None else found
    mark = _shifted(spot.value, fault.node, fault.limits["offset"])
    return Issue(message, spot.path, mark, hint, code=fault.limits["code"])


def _shifted(mark: FilePosition | None, text: Any, offset: int | None) -> FilePosition | None:
    """Move a mark from the beginning of a text to one of its characters, where it is written on one line."""
    if mark is None or mark.text is None or offset is None or not isinstance(text, str):
        return mark
    start = mark.text.find(text, mark.column - 1)
    return mark if start < 0 else replace(mark, column=start + offset + 1)


def _type(fault: Fault) -> Issue:
    family = fault.kind.family
    kind = _FAMILIES.get(family, f"a {family} type")
    names = [] if family is None else list(registered(family))
    name = type_of(fault.node)
    spot = fault.node.spots["type"] if isinstance(fault.node, Map) and "type" in fault.node else fault.spot
    if isinstance(name, str):
        message = f"there is no {kind.partition(' ')[2]} `{clipped(name)}`"
        return Issue(message, spot.path, spot.value, _near_type(name, names, family))
    types = f"types: {listed(names)}"
    if isinstance(fault.node, Map) and "type" not in fault.node:
        return Issue("missing key `type`", spot.path, fault.node.here.value, types)
    found = fault.node.get("type") if isinstance(fault.node, Map) else fault.node
    return Issue(f"expected {kind}, found {shown(found)}", spot.path, spot.value, types)


def _near_type(name: str, names: list[str], family: str | None) -> str:
    near = nearest(name, names)
    source, _, rest = name.partition(":")  # as `--model` is written on the command line
    if rest and source in names:
        return f"write `{{type: {source}, name: {clipped(rest)}}}`"
    if family == "model" and (near is None or likeness(name, near) < _SURE):
        published = f"`{{type: torchvision, name: {clipped(name)}}}`"
        if near is not None:
            return f"did you mean `{near}`, or {published}?"
        return f"a model of torchvision or timm is written {published}"
    return f"types: {listed(names)}" if near is None else f"did you mean `{near}`?"
