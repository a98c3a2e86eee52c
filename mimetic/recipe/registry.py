"""Types of a recipe by name: `type: closed_form` finds the section that describes it.

A *family* is one place of the language where a `type:` may stand. Plugins add to a family by importing
`register` from an entry point of the group `mimetic.specs`; the exported JSON Schema then completes
their types too. How a type is carried out lives elsewhere (`covariance`, `initializers`, `models`, …),
so that a recipe can be read without torch.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mimetic.errors import UserError
from mimetic.recipe.base import Spec

Family = Literal[
    "init", "covariance", "scale", "model", "surgery", "data", "augment", "optimizer", "schedule", "learner"
]

S = TypeVar("S", bound=Spec)

_FAMILIES: dict[str, dict[str, type[Spec]]] = {}


def register(family: Family) -> Callable[[type[S]], type[S]]:
    """Return a decorator that adds a section to a family under the value of its `type` field.

    Raises:
        ValueError: If the name is taken, so that no plugin replaces a type silently.
    """

    def add(section: type[S]) -> type[S]:
        types = _FAMILIES.setdefault(family, {})
        name = section.type_name()
        if name in types:
            message = f"{family} type `{name}` is registered twice: {types[name]} and {section}"
            raise ValueError(message)
        types[name] = section
        return section

    return add


def registered(family: Family) -> dict[str, type[Spec]]:
    """Return the sections of a family by name, in order of registration."""
    return dict(_FAMILIES.get(family, {}))


def families() -> tuple[str, ...]:
    """Return the names of all families that hold a type."""
    return tuple(_FAMILIES)


def load_plugins() -> None:
    """Import every entry point of the group `mimetic.specs`; each registers its types.

    Raises:
        UserError: If a plugin cannot be imported; it names the plugin.
    """
    for entry in entry_points(group="mimetic.specs"):
        try:
            entry.load()
        except Exception as error:
            message = f"the plugin `{entry.name}` ({entry.value}) cannot be imported: {error}"
            raise UserError(message) from error


class Registered:
    """Annotation of a field that takes any type of a family: `Annotated[Spec, Registered("init")]`.

    A plain string stands for `{type: string}`.
    """

    def __init__(self, family: Family) -> None:
        self.family: Family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {
            _tag(name): handler.generate_schema(spec) for name, spec in registered(self.family).items()
        }
        tagged = core_schema.tagged_union_schema(choices, discriminator=_chosen)
        return core_schema.no_info_before_validator_function(_expand, tagged)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "enum": list(registered(self.family))}, handler(schema)]}


TAG = "type="
"""Begins the step that a choice by `type` adds to the location of an error, so that it is told from a key."""


def _tag(name: str) -> str:
    return TAG + name


def _chosen(value: Any) -> str | None:
    name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return _tag(name) if isinstance(name, str) else None


def _expand(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value
