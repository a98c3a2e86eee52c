"""Describe the sections of the language for readers: their keys, the values allowed, the defaults."""

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mimetic.config.base import NAME_PATTERN, Section
from mimetic.config.registry import Component, Registered, families
from mimetic.recipe.recipe import Arm, Recipe, Stage
from mimetic.recipe.validate.schema_node import SchemaNode, fields_of, sections_below

_WORDS: Mapping[object, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Any: "any value",
}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@cache
def sections() -> dict[str, type[Section]]:
    """Return the sections that are no components, by the key that leads to each, or else by their class.

    A key of several sections, or of entries that are called otherwise, names none: `rule`, not `init`.
    """
    found: dict[type[Section], set[str]] = {}
    for root in (Recipe, Arm, Stage):
        for path, section in sections_below(SchemaNode(section=root)):
            if not issubclass(section, Component):
                found.setdefault(section, set()).update(path[-1:])
    named = {}
    for section, keys in found.items():
        key = next(iter(keys)) if len(keys) == 1 else ""
        named[key if key and key not in families() else section.__name__.lower()] = section
    return named


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a section.

    Attributes:
        description: What it means.
        allowed: What its value may be.
        required: Whether it must be given.
        default: Its value unless given, as a recipe would have it.
    """

    description: str
    allowed: str
    required: bool
    default: object


def keys_of(section: type[Section]) -> dict[str, Key]:
    """Return the keys of a section, `type` left out.

    A recipe's name and parts, and the ids of rules, are filled in where they are not given.
    """
    return {
        key: Key(
            field.description or "",
            allowed(field.annotation, *field.metadata),
            field.is_required() and key != "id" and section is not Recipe,
            None if field.is_required() else _plain(field.get_default(call_default_factory=True)),
        )
        for key, field in fields_of(section).items()
        if key != "type" or not issubclass(section, Component)
    }


def default_text(value: object) -> str:
    """Return a default as a recipe would have it; a section without changes as its type."""
    if isinstance(value, Mapping) and set(value) == {"type"}:
        return str(value["type"])
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def first_line(text: str | None) -> str:
    """Return the first line of a docstring."""
    return text.strip().splitlines()[0] if text else ""


def allowed(annotation: object, *metadata: object) -> str:
    """Return what a value may be, e.g. `number > 0 or null`, `auto, fp32 or bf16`, `type of optimizer`."""
    for item in metadata:
        if isinstance(item, Registered):
            return f"type of {item.family}"
        if isinstance(item, BeforeValidator) and item.json_schema_input_type is not PydanticUndefined:
            return allowed(item.json_schema_input_type)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return allowed(arguments[0], *arguments[1:], *metadata)
    if origin is types.UnionType or origin is Union:
        return " or ".join(dict.fromkeys(allowed(argument, *metadata) for argument in arguments))
    return _simple(annotation, origin, arguments) + _constraints(annotation, metadata)


def _simple(annotation: object, origin: object, arguments: tuple[object, ...]) -> str:
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(map(str, arguments[:-1])), default_text(arguments[-1]))))
    if origin in {tuple, list}:
        return f"list of {allowed(arguments[0])}"
    if origin is dict:
        return f"map of names to {allowed(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        names = [name for name, section in sections().items() if section is annotation]
        return f"section {names[0]}" if names else "map"
    return "null" if annotation is type(None) else _WORDS.get(annotation, "value")


def _constraints(annotation: object, metadata: tuple[object, ...]) -> str:
    """Return the bounds of a number, or the pattern of a text."""
    every = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    if annotation is str:
        patterns = [pattern for item in every if (pattern := getattr(item, "pattern", None)) is not None]
        return "".join(f" matching {pattern}" for pattern in patterns if pattern != NAME_PATTERN)
    if annotation not in {int, float}:
        return ""
    found = ((sign, getattr(item, name, None)) for item in every for name, sign in _BOUNDS.items())
    return " and".join(f" {sign} {value:g}" for sign, value in found if value is not None)


def _plain(value: object) -> object:
    """Return a default as plain values; of a section, what differs from its own defaults."""
    if isinstance(value, Component):
        return {
            "type": value.type_name(),
            **value.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return list(value) if isinstance(value, tuple) else value
