"""The schema's errors as issues: our words, the place in the file, a repair."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mimetic.recipe.advice import unknown_key
from mimetic.recipe.base import MISTAKE, NAME_PATTERN
from mimetic.recipe.errors import Issue, Mark, Step, clipped
from mimetic.recipe.grammar import Place, fields_of, type_of
from mimetic.recipe.registry import TAG, registered
from mimetic.recipe.scalars import meant_bool, meant_number
from mimetic.recipe.suggest import choice, did_you_mean, listed
from mimetic.recipe.tree import List, Map, Spot, shown

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
        name = str(site.rest[0])
        spot = site.node.spots.get(name, site.spot) if isinstance(site.node, Map) else site.spot
        message, hint = _name(name)
        return Issue(message, spot.path, spot.key or spot.value, hint)
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
    spot = site.spot
    if isinstance(site.node, Map):
        spot = site.node.spots.get(at, site.node.last) if at is not None else site.node.last
    return Issue(message, spot.path, spot.value, hint)


def _type(site: _Site) -> Issue:
    family = site.kind.family
    names = [] if family is None else list(registered(family))
    name = type_of(site.node)
    spot = site.node.spots["type"] if isinstance(site.node, Map) and "type" in site.node else site.spot
    if isinstance(name, str):
        hint = choice(name, names, label="types")
        return Issue(
            f"`{clipped(name)}` is no type of {_FAMILIES.get(family, family)}", spot.path, spot.value, hint
        )
    if isinstance(site.node, Map) and "type" not in site.node:
        return Issue("missing key `type`", spot.path, site.node.here.value, f"types: {listed(names)}")
    found = site.node.get("type") if isinstance(site.node, Map) else site.node
    message = f"expected a type of {_FAMILIES.get(family, family)}, found {shown(found)}"
    return Issue(message, spot.path, spot.value, f"types: {listed(names)}")


_FAMILIES: dict[Any, str] = {
    "init": "initializer",
    "covariance": "covariance",
    "scale": "scale",
    "model": "model",
    "data": "data",
    "augment": "augmentation",
    "optimizer": "optimizer",
    "schedule": "schedule",
}


def _missing(site: _Site) -> _Said:
    step = site.rest[0] if site.rest else ""
    if isinstance(step, int) and isinstance(site.node, List):
        return _length(site)
    field = None if site.kind.section is None else fields_of(site.kind.section).get(str(step))
    said = None if field is None or field.description is None else f"`{step}`: {field.description}"
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
        return f"expected {what}, found {shown(found)}", mend(found)

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


def _mend_list(found: Any) -> str | None:
    if isinstance(found, bool | int | float):
        return f"write `[{shown(found)}]`"
    if isinstance(found, str):
        return f"write `[{clipped(found, 40)}]`"
    return None


def _section(site: _Site) -> _Said:
    section = site.kind.section
    message = f"expected {'a map' if section is None else section.expected}, found {shown(site.node)}"
    if site.node is None:
        return message, "leave the key out to take the defaults"
    keys = site.kind.keys()
    return (
        message,
        f"keys: {listed(keys)}" if keys and section is not None and section.expected == "a map" else None,
    )


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
        f"{clipped(repr(name))} is no name",
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
    "tuple_type": _expected("a list", _mend_list),
    "list_type": _expected("a list", _mend_list),
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
