"""The schema of the language, read from the sections' annotations.

Composition looks up shorthands and lists that merge by id, error messages the keys of a section, and `--set`
whether a value is text.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mimetic.config.base import Section
from mimetic.config.registry import Registered, registered
from mimetic.config.text.tree import Map

_MAX_DEPTH = 5
"""Depth limit of searches: a plug-in's section may contain itself."""


@dataclass(frozen=True, slots=True)
class SchemaNode:
    """What is allowed at one path.

    Attributes:
        section: The section whose keys are allowed.
        family: The family of components allowed, chosen by `type`.
        items: Annotation of the entries of a list.
        values: Annotation of the values of a map with free keys.
        length: Number of entries of a list of fixed length.
        choices: The literal values allowed.
        is_text: Whether only text is allowed.
        num_forms: Number of alternative forms of the value, null not counted.
    """

    section: type[Section] | None = None
    family: str | None = None
    items: Any = None
    values: Any = None
    length: int | None = None
    choices: tuple[Any, ...] = ()
    is_text: bool = False
    num_forms: int = 1

    @property
    def shorthand(self) -> str | None:
        """Return the key that a plain text abbreviates."""
        if self.family is not None:
            return "type"
        return None if self.section is None else self.section.shorthand

    def chosen(self, value: object) -> "SchemaNode":
        """Return the node of the section that a value's `type` chooses in the family."""
        if self.family is None:
            return self
        return SchemaNode(registered(self.family).get(str(type_of(value))), self.family)

    def fields(self) -> dict[str, FieldInfo]:
        """Return the section's fields by key; none for a family before its type is chosen."""
        return {} if self.section is None else fields_of(self.section)

    def below(self, step: str | int) -> "SchemaNode":
        """Return the node at a key or an index; an empty node where the schema has none."""
        if isinstance(step, int):
            return node_of(self.items)
        field = self.fields().get(step)
        return node_of(self.values) if field is None else node_of(field.annotation, *field.metadata)


def type_of(value: object) -> object:
    """Return the type a map or its shorthand names, or None."""
    return value.get("type") if isinstance(value, Map) else value if isinstance(value, str) else None


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the fields of a section by their keys in a recipe."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def node_of(annotation: Any, *metadata: Any) -> SchemaNode:
    """Return the schema node of an annotation."""
    family = next((item.family for item in metadata if isinstance(item, Registered)), None)
    if family is not None:
        return SchemaNode(family=family)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return node_of(arguments[0], *arguments[1:])
    if origin is types.UnionType or origin is Union:
        return _union([node_of(a) for a in arguments if a is not type(None)])
    return _simple(annotation, origin, arguments)


def _simple(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> SchemaNode:
    if origin is tuple:
        return SchemaNode(items=arguments[0], length=None if arguments[-1] is Ellipsis else len(arguments))
    if origin is dict:
        return SchemaNode(values=arguments[1])
    if origin is Literal:
        return SchemaNode(choices=arguments)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return SchemaNode(section=annotation)
    return SchemaNode(is_text=annotation is str)


def _union(forms: list[SchemaNode]) -> SchemaNode:
    """Return the node of a value with several forms: each attribute from the first form that has it."""
    first = {
        name: next((found for form in forms if (found := getattr(form, name)) is not None), None)
        for name in ("section", "family", "items", "values", "length")
    }
    choices = tuple(choice for form in forms for choice in form.choices)
    is_text = all(form.is_text for form in forms)
    return SchemaNode(**first, choices=choices, is_text=is_text, num_forms=len(forms))


def sections_below(root: SchemaNode) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    """Yield every section below a node breadth first, with the keys that lead to it."""
    todo: list[tuple[tuple[str, ...], SchemaNode]] = [((), root)]
    for path, here in todo:  # grows during the iteration
        if here.items is not None:
            todo.append((path, node_of(here.items)))
        sections = [here.section] if here.family is None else registered(here.family).values()
        for section in sections:
            if section is None:
                continue
            yield path, section
            if len(path) < _MAX_DEPTH:
                node = SchemaNode(section=section)
                todo += [((*path, key), node.below(key)) for key in fields_of(section)]
