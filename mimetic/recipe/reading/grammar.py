"""What may stand where in the language, read from the sections' own annotations.

Composition asks it where a text is short for a map and which lists merge by id, error messages ask it
for the keys of a place, and `--set` asks it whether a value is text.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mimetic.config.base import Section
from mimetic.config.registry import Registered, registered
from mimetic.config.text.tree import Map

_DEEPEST = 5
"""Where the search for a key's home ends: a plugin's section may hold itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """What may stand at one place.

    Attributes:
        section: The section whose keys stand there.
        family: The family whose types stand there, chosen by `type`.
        items: Annotation of the entries, where a list stands there.
        values: Annotation of the values, where a map with free keys stands there.
        length: Number of the entries, where it is fixed.
        choices: The values that may stand there, where they are few.
        is_text: Whether only text stands there.
        forms: How many forms a value may have there; null does not count.
    """

    section: type[Section] | None = None
    family: str | None = None
    items: Any = None
    values: Any = None
    length: int | None = None
    choices: tuple[Any, ...] = ()
    is_text: bool = False
    forms: int = 1

    @property
    def shorthand(self) -> str | None:
        """Return the key that a plain text at this place stands for."""
        if self.family is not None:
            return "type"
        return None if self.section is None else self.section.shorthand

    def chosen(self, node: Any) -> "Place":
        """Return the place with the section that a value's `type` chooses in a family."""
        if self.family is None:
            return self
        section = registered(self.family).get(str(type_of(node)))
        return Place(section=section, family=self.family)

    def keys(self) -> tuple[str, ...]:
        """Return the keys that may stand there, once the type is chosen."""
        return () if self.section is None else tuple(fields_of(self.section))

    def below(self, step: str | int) -> "Place":
        """Return what may stand at a key or an index; an empty place where nothing is known."""
        if isinstance(step, int):
            return place(self.items)
        if self.section is not None and (field := fields_of(self.section).get(step)) is not None:
            return place(field.annotation, *field.metadata)
        return place(self.values)


def type_of(node: Any) -> Any:
    """Return the type a map or its shorthand names; None where it names none."""
    return node.get("type") if isinstance(node, Map) else node if isinstance(node, str) else None


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the fields of a section by the keys they have in a recipe."""
    return {
        name if field.alias is None else field.alias: field for name, field in section.model_fields.items()
    }


def place(annotation: Any, *metadata: Any) -> Place:
    """Return the place that an annotation describes."""
    family = next((item.family for item in metadata if isinstance(item, Registered)), None)
    if family is not None:
        return Place(family=family)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return place(arguments[0], *arguments[1:])
    if origin is types.UnionType or origin is Union:
        return _joined([place(a) for a in arguments if a is not type(None)])
    return _simple(annotation, origin, arguments)


def _joined(forms: list[Place]) -> Place:
    """Return what may stand where a value may have several forms."""

    def first(name: str) -> Any:
        return next((value for form in forms if (value := getattr(form, name)) is not None), None)

    return Place(
        section=first("section"),
        family=first("family"),
        items=first("items"),
        values=first("values"),
        length=first("length"),
        choices=tuple(choice for form in forms for choice in form.choices),
        is_text=all(form.is_text for form in forms),
        forms=len(forms),
    )


def _simple(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Place:
    if origin is tuple:
        return Place(items=arguments[0], length=None if arguments[-1] is Ellipsis else len(arguments))
    if origin is dict:
        return Place(values=arguments[1])
    if origin is Literal:
        return Place(choices=arguments)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Place(section=annotation)
    return Place(is_text=annotation is str)


def homes(root: Place) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    """Yield every section of the language below a place, nearest first, with the keys that lead to it."""
    todo: list[tuple[tuple[str, ...], Place]] = [((), root)]
    for path, here in todo:  # grows while it is read
        if here.items is not None:
            todo.append((path, place(here.items)))
        sections = [here.section] if here.family is None else registered(here.family).values()
        for section in sections:
            if section is None:
                continue
            yield path, section
            if len(path) < _DEEPEST:
                known = Place(section=section)
                todo += [((*path, key), known.below(key)) for key in fields_of(section)]
