"""The schema's errors as issues: our words, the place in the file, a repair."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mimetic.recipe.advice import unknown_key
from mimetic.recipe.base import MISTAKE, NAME_PATTERN
from mimetic.recipe.errors import Issue, Mark, Step, clipped
from mimetic.recipe.grammar import Place, fields_of, type_of
from mimetic.recipe.registry import TAG, Family, registered
from mimetic.recipe.scalars import meant_bool, meant_number
from mimetic.recipe.suggest import did_you_mean, likeness, listed, nearest
from mimetic.recipe.tree import List, Map, Spot, find, shown

INCOMPLETE = "missing", "union_tag_not_found", "too_short"
"""Types of errors that an arm may still mend, so that they do not count in what all arms share."""


@dataclass(frozen=True, slots=True)
class _Site:
    """Where an error lies: how far its location could be followed in the tree.

    Attributes:
        node: The value there.
        spot: Where it was written.
        kind: What the language allows there.
        field: The field whose value it is.
        rest: Steps of the location that lead to nothing that was written.
        error: What pydantic says.
    """

    node: Any
    spot: Spot
    kind: Place
    field: FieldInfo | None
    rest: tuple[Step, ...]
    error: Mapping[str, Any]

    @property
    def found(self) -> Any:
        return self.error["input"]

    @property
    def limits(self) -> Mapping[str, Any]:
        return self.error.get("ctx", {})  # type: ignore[no-any-return]


_Said = tuple[str, str | None]


def issues_of(error: ValidationError, tree: Map, root: Place, *, complete: bool = True) -> list[Issue]:
    """Return the errors of a validation as issues.

    Args:
        error: What the schema found.
        tree: The tree that was validated.
        root: What the language allows at its top.
        complete: False for what all arms share, where an arm may give what is missing.
    """
    sites = [_follow(found, tree, root) for found in error.errors(include_url=False)]
    return [_issue(site) for site in sites if complete or not _may_be_mended(site)]


def _may_be_mended(site: _Site) -> bool:
    kind = site.error["type"]
    return kind in INCOMPLETE or (kind == MISTAKE and isinstance(site.node, Map))


def _follow(error: Mapping[str, Any], tree: Map, root: Place) -> _Site:
    node: Any = tree
    spot, kind, field = tree.here, root, None
    location: tuple[Step, ...] = error["loc"]
    for index, step in enumerate(location):
        kind = kind.chosen(node)
        if error["type"] == "extra_forbidden" and index == len(location) - 1:
            break
        if isinstance(step, str) and step.startswith(TAG):
            continue
        if isinstance(node, Map) and isinstance(step, str) and step in node:
            field = None if kind.section is None else fields_of(kind.section).get(step)
            node, spot = node[step], node.spots[step]
        elif isinstance(node, List) and isinstance(step, int) and 0 <= step < len(node):
            node, spot = node[step], node.spots[step]
        else:
            break
        kind = kind.below(step)
    else:
        index = len(location)
    return _Site(node, spot, kind.chosen(node), field, location[index:], error)


def _issue(site: _Site) -> Issue:
    kind = site.error["type"]
    if kind == "extra_forbidden":
        return _unknown(site)
    if site.rest[-1:] == ("[key]",):
        message, hint = _name(str(site.error["loc"][-2]))
        return Issue(message, site.spot.path, site.spot.key or site.spot.value, hint)
    if kind == MISTAKE:
        return _mistake(site)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _type(site)
    say = _WORDS.get(kind, _otherwise)
    message, hint = say(site)
    return Issue(message, site.spot.path, _mark(site), hint)


def _mark(site: _Site) -> Mark | None:
    if site.error["type"] == "missing" and isinstance(site.node, Map):
        return site.node.here.value
    return site.spot.value


def _unknown(site: _Site) -> Issue:
    key = str(site.rest[-1])
    spot = site.node.spots.get(key, site.spot) if isinstance(site.node, Map) else site.spot
    hint = unknown_key(key, site.kind, site.spot.path)
    return Issue(f"unknown key `{clipped(key)}`", spot.path, spot.key or spot.value, hint)


def _mistake(site: _Site) -> Issue:
    message, at, hint = site.limits["message"], site.limits["at"], site.limits["hint"]
    # A map that was changed by a later layer was right before: the change is at fault.
    spot = site.node.last if isinstance(site.node, Map) and not site.rest else site.spot
    found = find(site.node, at) if at else None
    spot = spot if found is None else found
    return Issue(message, spot.path, _shifted(spot.value, site.node, site.limits["offset"]), hint)


def _shifted(mark: Mark | None, text: Any, offset: int | None) -> Mark | None:
    """Move a mark from the beginning of a text to one of its characters, where it is written on one line."""
    if mark is None or mark.text is None or offset is None or not isinstance(text, str):
        return mark
    start = mark.text.find(text, mark.column - 1)
    return mark if start < 0 else replace(mark, column=start + offset + 1)


def _type(site: _Site) -> Issue:
    family = site.kind.family
    kind = _FAMILIES.get(family, f"a {family} type")
    names = [] if family is None else list(registered(family))
    name = type_of(site.node)
    spot = site.node.spots["type"] if isinstance(site.node, Map) and "type" in site.node else site.spot
    if isinstance(name, str):
        message = f"there is no {kind.partition(' ')[2]} `{clipped(name)}`"
        return Issue(message, spot.path, spot.value, _near_type(name, names, family))
    types = f"types: {listed(names)}"
    if isinstance(site.node, Map) and "type" not in site.node:
        return Issue("missing key `type`", spot.path, site.node.here.value, types)
    found = site.node.get("type") if isinstance(site.node, Map) else site.node
    return Issue(f"expected {kind}, found {shown(found)}", spot.path, spot.value, types)


def _near_type(name: str, names: list[str], family: Family | None) -> str:
    near = nearest(name, names)
    if family == "model" and (near is None or likeness(name, near) < _SURE):
        return f"a model of torchvision or timm is written `{{type: torchvision, name: {clipped(name)}}}`"
    return f"types: {listed(names)}" if near is None else f"did you mean `{near}`?"


_SURE = 0.8

_FAMILIES: dict[Any, str] = {
    "init": "an initializer type",
    "covariance": "a covariance type",
    "scale": "a scale type",
    "model": "a model type",
    "data": "a data type",
    "augment": "an augmentation type",
    "optimizer": "an optimizer type",
    "schedule": "a schedule type",
}


def _missing(site: _Site) -> _Said:
    step = site.rest[0] if site.rest else ""
    if isinstance(step, int) and isinstance(site.node, List):
        return _length(site)
    field = None if site.kind.section is None else fields_of(site.kind.section).get(str(step))
    said = f"add `{step}: …`"
    if field is not None and field.description is not None:
        said += f" ({field.description.rstrip('.')})"
    name = type_of(site.node) if site.kind.family is not None else None
    if isinstance(site.node, str):
        return f"`{name}` needs the key `{step}`", f"write `{{type: {name}, {step}: …}}`"
    return f"missing key `{step}`" if name is None else f"`{name}` needs the key `{step}`", said


def _length(site: _Site) -> _Said:
    number = len(site.node) if isinstance(site.node, List) else "another number"
    if site.kind.length is not None:
        return f"expected {site.kind.length} values, found {number}", None
    least, most = site.limits.get("min_length"), site.limits.get("max_length")
    if least is not None:
        return f"expected at least {least} {'entry' if least == 1 else 'entries'}, found {number}", None
    return f"expected at most {most} entries, found {number}", None


def _expected(what: str, mend: Callable[[Any], str | None]) -> Callable[[_Site], _Said]:
    def say(site: _Site) -> _Said:
        found = site.found if site.rest else site.node
        hint = mend(found)
        if found is None and site.field is not None and not site.field.is_required():
            hint = "leave the key out to take the default"
        return f"expected {what}, found {shown(found)}", hint

    return say


def _mend_int(found: Any) -> str | None:
    if isinstance(found, float) and found.is_integer() and abs(found) < 10**15:
        return f"write `{int(found)}`"
    number = meant_number(found) if isinstance(found, str) else None
    return None if number is None else f"write `{number}`, without quotes"


def _mend_float(found: Any) -> str | None:
    number = meant_number(found) if isinstance(found, str) else None
    return None if number is None else f"write `{number}`, without quotes"


def _mend_bool(found: Any) -> str | None:
    word = meant_bool(str(found)) if isinstance(found, str | int) else None
    return None if word is None else f"write `{word}`"


def _mend_text(found: Any) -> str | None:
    if isinstance(found, bool | int | float):
        return f"put it in quotes: '{shown(found)}'"
    return None


def _list(site: _Site) -> _Said:
    message = f"expected a list, found {shown(site.node)}"
    if site.kind.length is not None:
        return f"expected a list of {site.kind.length} values, found {shown(site.node)}", None
    if isinstance(site.node, bool | int | float | str) and site.node != "":
        value = site.node if isinstance(site.node, str) else shown(site.node)
        return message, f"write `[{clipped(value, 40)}]`"
    return message, None


def _section(site: _Site) -> _Said:
    section = site.kind.section
    expected = "a map" if section is None else section.expected
    message = f"expected {expected}, found {shown(site.node)}"
    if site.node is None:
        return message, "leave the key out to take the defaults"
    if isinstance(site.node, str) and expected.startswith("true"):
        return message, _mend_bool(site.node)
    if isinstance(site.node, str) and expected.startswith(("a number", "a whole number")):
        return message, _mend_float(site.node)
    return message, f"keys: {listed(site.kind.keys())}" if expected == "a map" and site.kind.keys() else None


def _literal(site: _Site) -> _Said:
    choices = [str(c) for c in site.kind.choices]
    if isinstance(site.node, str):
        message = f"`{clipped(site.node)}` is not one of {listed(choices)}"
        return message, did_you_mean(site.node, choices)
    return f"expected one of {listed(choices)}, found {shown(site.node)}", None


def _bound(words: str, limit: str) -> Callable[[_Site], _Said]:
    def say(site: _Site) -> _Said:
        value = site.limits[limit]
        bound = int(value) if isinstance(value, float) and value.is_integer() else value
        return f"must be {words} {bound}, found {shown(site.found)}", None

    return say


def _finite(site: _Site) -> _Said:
    return f"must be a finite number, found {shown(site.found)}", None


def _empty_text(_: _Site) -> _Said:
    return "must not be empty", None


def _too_long_text(site: _Site) -> _Said:
    return f"is too long: {len(str(site.node))} characters, at most {site.limits['max_length']}", None


def _pattern(site: _Site) -> _Said:
    if site.limits["pattern"] == NAME_PATTERN:
        return _name(str(site.node))
    examples = [] if site.field is None or site.field.examples is None else site.field.examples
    hint = (
        f"write, for example, {listed(examples)}"
        if examples
        else f"expected the form {site.limits['pattern']}"
    )
    return f"{shown(site.node).removeprefix('the text ')} is not understood here", hint


def _name(name: str) -> _Said:
    return (
        f"{clipped(repr(name))} is not a valid name",
        "names are up to 80 letters, digits, `.`, `_` and `-`, and begin with a letter or a digit",
    )


def _otherwise(site: _Site) -> _Said:
    message = str(site.error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:], None


_WORDS: dict[str, Callable[[_Site], _Said]] = {
    "missing": _missing,
    "too_short": _length,
    "too_long": _length,
    "int_type": _expected("a whole number", _mend_int),
    "int_from_float": _expected("a whole number", _mend_int),
    "float_type": _expected("a number", _mend_float),
    "bool_type": _expected("true or false", _mend_bool),
    "string_type": _expected("text", _mend_text),
    "tuple_type": _list,
    "list_type": _list,
    "dict_type": _expected("a map", lambda _: None),
    "model_type": _section,
    "model_attributes_type": _section,
    "literal_error": _literal,
    "greater_than_equal": _bound("at least", "ge"),
    "greater_than": _bound("greater than", "gt"),
    "less_than_equal": _bound("at most", "le"),
    "less_than": _bound("less than", "lt"),
    "finite_number": _finite,
    "string_too_short": _empty_text,
    "string_too_long": _too_long_text,
    "string_pattern_mismatch": _pattern,
}
