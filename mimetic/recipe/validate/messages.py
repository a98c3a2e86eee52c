"""Turn pydantic's errors into issues: the position of each error, a message and a repair."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic.fields import FieldInfo

from mimetic.config.base import NAME_PATTERN, VALIDATION_ERROR
from mimetic.config.errors import MAX_ISSUES, FilePosition, Issue, Step, clipped
from mimetic.config.registry import TAG, registered
from mimetic.config.suggest import did_you_mean, listed
from mimetic.config.text.scalars import meant_bool, meant_number
from mimetic.config.text.tree import List, Map, NodePosition, find, shown
from mimetic.recipe.validate.hints import unknown_key_hint, unknown_type_hint
from mimetic.recipe.validate.schema_node import SchemaNode, node_of, type_of

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "literal_error": "",
}
"""Pydantic's errors for a value of the wrong kind, and the kind that is expected."""

_TEMPLATES = {
    "missing": ("MIM-R002", "missing key `{key}`{of_type}"),
    "greater_than_equal": ("MIM-R006", "must be at least {ge}, found {found}"),
    "greater_than": ("MIM-R006", "must be greater than {gt}, found {found}"),
    "less_than_equal": ("MIM-R006", "must be at most {le}, found {found}"),
    "less_than": ("MIM-R006", "must be less than {lt}, found {found}"),
    "finite_number": ("MIM-R006", "must be a finite number, found {found}"),
    "too_short": ("MIM-R007", "expected {length}, found {count}"),
    "too_long": ("MIM-R007", "expected {length}, found {count}"),
    "string_too_short": ("MIM-R007", "must not be empty"),
    "string_too_long": ("MIM-R007", "is too long: {count} characters, at most {max_length}"),
    "string_pattern_mismatch": ("MIM-R008", "{quoted} does not have the expected form"),
    "name": ("MIM-R009", "{quoted} is not a valid name"),
}
"""Code and message by pydantic's type of error."""

_INCOMPLETE = ("missing", "union_tag_not_found", "too_short")
"""Errors in what all arms share that an arm may still complete."""

_NOUNS = {"init": "initializer", "augment": "augmentation"}
"""Families with a name other than their key."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """One pydantic error and where its location leads in the tree.

    Attributes:
        node: The value there.
        at: Where it was written.
        schema: What the language allows there.
        field: The field whose value it is.
        rest: Steps of the location that have no counterpart in the tree.
        error: Pydantic's error.
        form: Location of a value with several forms, if the error is about one of them.
    """

    node: Any
    at: NodePosition
    schema: SchemaNode
    field: FieldInfo | None
    rest: tuple[Step, ...]
    error: Mapping[str, Any]
    form: tuple[Step, ...] | None = None

    @property
    def kind(self) -> str:
        """Return pydantic's type of error; names have their own type."""
        pattern = self.context.get("pattern") if self.rest[-1:] != ("[key]",) else NAME_PATTERN
        return "name" if pattern == NAME_PATTERN else str(self.error["type"])

    @property
    def value(self) -> Any:
        """Return the refused value, with shorthands written out."""
        return self.error["input"] if self.rest else self.node

    @property
    def context(self) -> Mapping[str, Any]:
        """Return pydantic's details, such as the violated bound."""
        return self.error.get("ctx", {})  # type: ignore[no-any-return]

    @property
    def is_consequence(self) -> bool:
        """Return whether a list only lacks entries because pydantic does not count the invalid ones."""
        enough = isinstance(self.node, List) and len(self.node) >= self.context.get("min_length", math.inf)
        return self.kind == "too_short" and enough


def issues_of(
    errors: Iterable[Mapping[str, Any]], tree: Map, root: SchemaNode, *, complete: bool = True
) -> list[Issue]:
    """Return the errors of a validation as issues.

    `complete` is False for what all arms share, where an arm may add what is missing.
    """
    few = islice(errors, MAX_ISSUES)
    faults = [fault for found in few if not (fault := _located(found, tree, root)).is_consequence]
    issues = [_issue(f) for f in faults if f.form is None and (complete or not _may_be_completed(f))]
    for form in dict.fromkeys(f.form for f in faults if f.form is not None):
        issues += _issues_of_union([f for f in faults if f.form == form])
    return issues


def _located(error: Mapping[str, Any], tree: Map, root: SchemaNode) -> _Fault:
    """Follow the location of an error through the tree and the schema.

    Steps that name a `type`, or a form of a union, have no counterpart in the tree and are skipped. A
    location inside the written-out form of a shorthand ends at the shorthand.
    """
    node: Any = tree
    at, schema, field, form = tree.here, root, None, None
    location: tuple[Step, ...] = error["loc"]
    rest: tuple[Step, ...] = ()
    names_key = error["type"] in {"extra_forbidden", "missing"}
    for index, step in enumerate(location):
        schema = schema.chosen(node)
        last = index == len(location) - 1
        if last and names_key:
            rest = (step,)
        elif isinstance(step, str) and step.startswith(TAG):
            continue
        elif (isinstance(node, Map) and step in node) or (
            isinstance(node, List) and isinstance(step, int) and 0 <= step < len(node)
        ):
            field = schema.fields().get(str(step))
            node, at, schema = node[step], node.spots[step], schema.below(step)  # type: ignore[index]
        elif schema.num_forms > 1 and form is None:
            form = location[:index]
        elif last or step == "[key]":
            rest = location[index:]
            break
    return _Fault(node, at, schema.chosen(node), field, rest, error, form)


def _may_be_completed(fault: _Fault) -> bool:
    kind = fault.error["type"]
    return kind in _INCOMPLETE or (kind == VALIDATION_ERROR and isinstance(fault.node, Map))


def _issues_of_union(faults: list[_Fault]) -> list[Issue]:
    """Return the issues of a value that fits none of its forms.

    If the value is of the kind of one form, only that form's errors count; else all forms are listed.
    """
    of_that_kind = [f for f in faults if f.kind not in _EXPECTED or f.at != faults[0].at]
    if of_that_kind:
        deepest = max(len(f.at.path) for f in faults)
        return [_issue(f) for f in of_that_kind if len(f.at.path) == deepest]
    forms = " or ".join(dict.fromkeys(_expected(f) for f in faults))
    hint = next((hint for f in faults if (hint := _repair(f)) is not None), None)
    at = faults[0].at
    message = f"expected {forms}, found {shown(faults[0].node)}"
    return [Issue(message, at.path, at.value, hint, code="MIM-R004")]


def _issue(fault: _Fault) -> Issue:
    kind, at = fault.kind, fault.at
    if kind == "extra_forbidden":
        key = str(fault.rest[-1])
        at = fault.node.spots.get(key, at) if isinstance(fault.node, Map) else at
        hint = unknown_key_hint(key, fault.schema, fault.at.path)
        return Issue(f"unknown key `{clipped(key)}`", at.path, at.start, hint, code="MIM-R001")
    if kind == VALIDATION_ERROR:
        return _own_issue(fault)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _type_issue(fault)
    if kind == "literal_error" and isinstance(fault.node, str) and fault.form is None:
        choices = [str(c) for c in fault.schema.choices]
        message = f"`{clipped(fault.node)}` is not one of {listed(choices)}"
        return Issue(message, at.path, at.value, _repair(fault), code="MIM-R005")
    if kind in _EXPECTED:
        message = f"expected {_expected(fault)}, found {shown(fault.value)}"
        return Issue(message, at.path, at.value, _repair(fault), code="MIM-R004")
    return _template_issue(fault)


def _template_issue(fault: _Fault) -> Issue:
    """Return the issue of an error that has a template, or pydantic's own message."""
    kind, at = fault.kind, fault.at
    if kind == "missing" and isinstance(fault.rest[0], int):
        kind = "too_short"
    if kind not in _TEMPLATES:
        message = str(fault.error["msg"]).removeprefix("Value error, ")
        return Issue(message[:1].lower() + message[1:], at.path, at.value, code="MIM-R010")
    code, template = _TEMPLATES[kind]
    mark = at.value
    if fault.rest[-1:] == ("[key]",):
        mark = at.start
    elif kind == "missing" and isinstance(fault.node, Map):
        mark = fault.node.here.value
    message = template.format(**_details(fault))
    return Issue(message, at.path, mark, _template_hint(kind, fault), code=code)


def _details(fault: _Fault) -> dict[str, Any]:
    """Return the values of the templates' fields."""
    least, most = fault.context.get("min_length"), fault.context.get("max_length")
    length = f"at most {most} entries" if least is None else f"at least {least} entries"
    if fault.schema.length is not None:
        length = f"{fault.schema.length} values"
    named = type_of(fault.node) if fault.schema.family is not None else None
    name = fault.error["loc"][-2] if fault.rest[-1:] == ("[key]",) else fault.node
    bounds = {k: fault.context[k] for k in ("ge", "gt", "le", "lt") if k in fault.context}
    return {
        **fault.context,
        **{k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in bounds.items()},
        "found": shown(fault.value),
        "quoted": clipped(repr(name)),
        "count": len(fault.node) if isinstance(fault.node, str | List) else "another number",
        "length": length,
        "key": fault.rest[0] if fault.rest else "",
        "of_type": "" if named is None else f" of `{named}`",
    }


def _template_hint(kind: str, fault: _Fault) -> str | None:
    if kind == "name":
        return "names have up to 80 letters, digits, `.`, `_` and `-`, and start with a letter or a digit"
    if kind == "string_pattern_mismatch":
        examples = [] if fault.field is None or fault.field.examples is None else fault.field.examples
        return f"for example {listed(examples)}" if examples else f"expected {fault.context['pattern']}"
    if kind != "missing":
        return None
    key = str(fault.rest[0])
    if isinstance(fault.node, str):
        return f"write `{{{fault.schema.shorthand or 'type'}: {type_of(fault.node)}, {key}: …}}`"
    field = fault.schema.fields().get(key)
    description = "" if field is None or field.description is None else field.description.rstrip(".")
    return f"add `{key}: …` ({description})" if description else f"add `{key}: …`"


def _expected(fault: _Fault) -> str:
    """Return the kind of value that is expected."""
    if fault.kind == "literal_error":
        choices = listed(str(c) for c in fault.schema.choices)
        return choices if len(fault.schema.choices) == 1 else f"one of {choices}"
    if fault.kind.startswith("model") and fault.schema.section is not None:
        return fault.schema.section.expected
    words = _EXPECTED.get(fault.kind, "another value")
    exact = words == "a list" and fault.schema.length is not None
    return f"a list of {fault.schema.length} values" if exact else words


def _repair(fault: _Fault) -> str | None:
    """Return how a value of the wrong kind is probably written correctly."""
    expected, value = _expected(fault), fault.value
    if value is None:
        required = fault.field is None or fault.field.is_required()
        return None if required else "leave the key out to use the default"
    if fault.kind == "literal_error" and isinstance(value, str):
        return did_you_mean(value, (str(c) for c in fault.schema.choices))
    if expected == "a list" and isinstance(value, bool | int | float | str) and value != "":
        entry = node_of(fault.schema.items)
        fits = not isinstance(value, str) or entry.is_text or entry.shorthand is not None
        return f"write `[{clipped(value if isinstance(value, str) else shown(value), 40)}]`" if fits else None
    if expected == "a map":
        keys = tuple(fault.schema.fields())
        return f"keys: {listed(keys)}" if keys else None
    return _scalar_repair(expected, value)


def _scalar_repair(expected: str, value: object) -> str | None:
    if expected.startswith("true"):
        word = meant_bool(str(value)) if isinstance(value, str | int) else None
        return None if word is None else f"write `{word}`"
    if expected.startswith(("a number", "a whole number")):
        if isinstance(value, float) and value.is_integer() and abs(value) < 10**15:
            return f"write `{int(value)}`"
        number = meant_number(value) if isinstance(value, str) else None
        if expected.startswith("a whole number") and number is not None and not number.lstrip("+-").isdigit():
            return None
        return None if number is None else f"write `{number}`, without quotes"
    if expected == "text" and isinstance(value, bool | int | float):
        return f"put it in quotes: '{shown(value)}'"
    return None


def _own_issue(fault: _Fault) -> Issue:
    """Return the issue of an error that one of our validators raised."""
    context = fault.context
    # a map that a later layer changed was valid before: the change is at fault
    at = fault.node.last if isinstance(fault.node, Map) and not fault.rest else fault.at
    found = find(fault.node, context["at"]) if context["at"] else None
    at = at if found is None else found
    mark = _shifted(at.value, fault.node, context["offset"])
    return Issue(context["message"], at.path, mark, context["hint"], code=context["code"])


def _shifted(mark: FilePosition | None, text: object, offset: int | None) -> FilePosition | None:
    """Move a position from the start of a text to one of its characters, if it is written on one line."""
    if mark is None or mark.text is None or offset is None or not isinstance(text, str):
        return mark
    start = mark.text.find(text, mark.column - 1)
    return mark if start < 0 else replace(mark, column=start + offset + 1)


def _type_issue(fault: _Fault) -> Issue:
    """Return the issue of a missing or unknown `type`."""
    family, node = str(fault.schema.family), fault.node
    noun, names = _NOUNS.get(family, family), list(registered(family))
    types = f"types: {listed(names)}"
    has_type = isinstance(node, Map) and "type" in node
    at = node.spots["type"] if has_type else fault.at
    name = type_of(node)
    if isinstance(name, str):
        hint = unknown_type_hint(name, names, family)
        return Issue(f"unknown {noun} type `{clipped(name)}`", at.path, at.value, hint, code="MIM-R003")
    if isinstance(node, Map) and not has_type:
        return Issue("missing key `type`", at.path, node.here.value, types, code="MIM-R002")
    found = shown(node["type"] if has_type else node)
    return Issue(f"expected a type of {noun}, found {found}", at.path, at.value, types, code="MIM-R004")
