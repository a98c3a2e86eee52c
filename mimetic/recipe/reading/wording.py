"""The schema's errors in plain words, with a repair where there is a usual one."""

from collections.abc import Callable
from typing import Any

from mimetic.config.base import NAME_PATTERN
from mimetic.config.errors import clipped
from mimetic.config.suggest import did_you_mean, listed
from mimetic.config.text.scalars import meant_bool, meant_number
from mimetic.config.text.tree import List, shown
from mimetic.recipe.reading.grammar import fields_of, place, type_of
from mimetic.recipe.reading.location import Fault

Said = tuple[str, str | None]
"""A message and a hint."""


def in_words(fault: Fault) -> Said:
    """Return the message and the hint for an error of the schema."""
    return _WORDS.get(fault.error["type"], _otherwise)(fault)


def _missing(fault: Fault) -> Said:
    step = fault.rest[0] if fault.rest else ""
    if isinstance(step, int) and isinstance(fault.node, List):
        return _length(fault)
    field = None if fault.kind.section is None else fields_of(fault.kind.section).get(str(step))
    said = f"add `{step}: …`"
    if field is not None and field.description is not None:
        said += f" ({field.description.rstrip('.')})"
    name = type_of(fault.node) if fault.kind.family is not None else None
    if isinstance(fault.node, str):
        return f"`{name}` needs the key `{step}`", f"write `{{type: {name}, {step}: …}}`"
    return f"missing key `{step}`" if name is None else f"`{name}` needs the key `{step}`", said


def _length(fault: Fault) -> Said:
    number = len(fault.node) if isinstance(fault.node, List) else "another number"
    if fault.kind.length is not None:
        return f"expected {fault.kind.length} values, found {number}", None
    least, most = fault.limits.get("min_length"), fault.limits.get("max_length")
    if least is not None:
        return f"expected at least {least} {'entry' if least == 1 else 'entries'}, found {number}", None
    return f"expected at most {most} entries, found {number}", None


def _expected(what: str, mend: Callable[[Any], str | None]) -> Callable[[Fault], Said]:
    def say(fault: Fault) -> Said:
        found = fault.found if fault.rest else fault.node
        hint = mend(found)
        if found is None and fault.field is not None and not fault.field.is_required():
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


def _list(fault: Fault) -> Said:
    message = f"expected a list, found {shown(fault.node)}"
    if fault.kind.length is not None:
        return f"expected a list of {fault.kind.length} values, found {shown(fault.node)}", None
    if isinstance(fault.node, str) and not _may_be_text(fault.kind.items):
        return message, None
    if isinstance(fault.node, bool | int | float | str) and fault.node != "":
        value = fault.node if isinstance(fault.node, str) else shown(fault.node)
        return message, f"write `[{clipped(value, 40)}]`"
    return message, None


def _may_be_text(annotation: Any) -> bool:
    entry = place(annotation)
    return entry.is_text or entry.shorthand is not None


def _section(fault: Fault) -> Said:
    section = fault.kind.section
    expected = "a map" if section is None else section.expected
    message = f"expected {expected}, found {shown(fault.node)}"
    if fault.node is None:
        required = fault.field is not None and fault.field.is_required()
        return message, None if required else "leave the key out to take the defaults"
    if isinstance(fault.node, str) and expected.startswith("true"):
        return message, _mend_bool(fault.node)
    if isinstance(fault.node, str) and expected.startswith(("a number", "a whole number")):
        return message, _mend_float(fault.node)
    keys = fault.kind.keys() if expected == "a map" else ()
    return message, f"keys: {listed(keys)}" if keys else None


def _literal(fault: Fault) -> Said:
    choices = [str(c) for c in fault.kind.choices]
    if isinstance(fault.node, str):
        message = f"`{clipped(fault.node)}` is not one of {listed(choices)}"
        near = did_you_mean(fault.node, choices)
        return (message if fault.choice is None else f"expected {listed(choices)}"), near
    one = "" if len(choices) == 1 else "one of "
    return f"expected {one}{listed(choices)}, found {shown(fault.node)}", None


def _bound(words: str, limit: str) -> Callable[[Fault], Said]:
    def say(fault: Fault) -> Said:
        value = fault.limits[limit]
        bound = int(value) if isinstance(value, float) and value.is_integer() else value
        return f"must be {words} {bound}, found {shown(fault.found)}", None

    return say


def _finite(fault: Fault) -> Said:
    return f"must be a finite number, found {shown(fault.found)}", None


def _empty_text(_: Fault) -> Said:
    return "must not be empty", None


def _too_long_text(fault: Fault) -> Said:
    return f"is too long: {len(str(fault.node))} characters, at most {fault.limits['max_length']}", None


def _pattern(fault: Fault) -> Said:
    if fault.limits["pattern"] == NAME_PATTERN:
        return name_in_words(str(fault.node))
    examples = [] if fault.field is None or fault.field.examples is None else fault.field.examples
    hint = (
        f"write, for example, {listed(examples)}"
        if examples
        else f"expected the form {fault.limits['pattern']}"
    )
    return f"{shown(fault.node).removeprefix('the text ')} is not understood here", hint


def name_in_words(name: str) -> Said:
    """Return the message and the hint for a name that is none."""
    return (
        f"{clipped(repr(name))} is not a valid name",
        "names are up to 80 letters, digits, `.`, `_` and `-`, and begin with a letter or a digit",
    )


def _otherwise(fault: Fault) -> Said:
    message = str(fault.error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:], None


KINDS = (
    "int_type",
    "int_from_float",
    "float_type",
    "bool_type",
    "string_type",
    "tuple_type",
    "list_type",
    "dict_type",
    "model_type",
    "model_attributes_type",
    "literal_error",
)
"""Types of errors that say: another kind of value belongs there."""

_WORDS: dict[str, Callable[[Fault], Said]] = {
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
