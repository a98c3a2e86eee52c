"""Write a composed recipe as YAML that loads back to an equal recipe, whatever defaults become later."""

from collections.abc import Mapping
from typing import Any

import yaml

from mimetic.config.base import Section
from mimetic.config.registry import Component
from mimetic.config.text.scalars import is_text
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.rule import Rule


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this language, or YAML 1.1, would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if is_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def resolved(recipe: Recipe) -> str:
    """Return a recipe as YAML, every arm complete and every default written out.

    Guarantee: `loads(resolved(recipe)) == recipe`.
    """
    return yaml.dump(
        values_of(recipe),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=110,
        default_flow_style=False,
    )


def values_of(value: Any) -> Any:
    """Return a section as plain maps and lists, by the keys of the language, without nulls by default."""
    if isinstance(value, Section):
        return _section(value)
    if isinstance(value, Mapping):
        return {key: values_of(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [values_of(item) for item in value]
    return value


def _section(section: Section) -> dict[str, Any]:
    values: dict[str, Any] = {"type": section.type_name()} if isinstance(section, Component) else {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None and not field.is_required() and field.get_default(call_default_factory=True) is None:
            continue
        if name == "scale" and isinstance(section, Rule) and section.init is not None:
            continue  # a named init has none
        values[name if field.alias is None else field.alias] = values_of(value)
    return values
