"""Suggest what to write instead of an unknown key or type."""

from collections.abc import Callable, Sequence
from functools import cache

from mimetic.config.base import Section
from mimetic.config.errors import Step, clipped
from mimetic.config.registry import Component, registered
from mimetic.config.suggest import listed, nearest, similarity_ratio
from mimetic.recipe.compose.group import LISTS
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.validate.schema_node import SchemaNode, fields_of, node_of, sections_below

_SURE = 0.8
_Path = tuple[str, ...]


def unknown_key_hint(key: str, here: SchemaNode, path: Sequence[Step]) -> str:
    """Return a hint for a key that its section does not have.

    In order: the new name of a renamed key, the key that a synonym means, a very similar key, the section
    that has the key, any similar key, all keys.

    `here` is the node whose section lacks the key, at `path`.
    """
    keys = tuple(here.fields())
    if here.section is not None and key in here.section.renamed:
        return f"`{key}` is now `{here.section.renamed[key]}`"
    if here.section is not None and key in here.section.synonyms:
        return f"did you mean `{here.section.synonyms[key]}`?"
    near = nearest(key, keys)
    if near is not None and similarity_ratio(key, near) >= _SURE:
        return f"did you mean `{near}`?"
    types = [] if here.family is None else registered(here.family).items()
    names = [name for name, section in types if key in fields_of(section)]
    if names:
        return f"`{key}` belongs to the type{'s' if len(names) > 1 else ''} {listed(names)}"
    section = suggest_section(key, _schema_path(path))
    if section is not None:
        return section
    return f"keys here: {listed(keys)}" if near is None else f"did you mean `{near}`?"


def suggest_section(key: str, near: Sequence[str] = ()) -> str | None:
    """Return a hint that names the sections with a key: the closest to a path, then the least nested."""
    found = {path: section for path, section in _sections() if key in fields_of(section)}
    if key == "type" or not found:
        return None
    # rules are meant far more often than rewrites, which share `match` and `freeze` with them
    paths = _preferred(list(found), lambda path: path[:1] != ("surgery",))
    if near:
        paths = _preferred(paths, lambda path: path[:1] == near[:1])
        paths = _preferred(paths, lambda path: path[: len(near)] == tuple(near))
    shallowest = min(len(path) for path in paths)
    paths = [path for path in paths if len(path) <= shallowest + 1]
    # a key of a plain section is always there, one of a component only for some types
    plain = {path[:1] for path in paths if not issubclass(found[path], Component)}
    paths = [p for p in paths if p[:1] not in plain or not issubclass(found[p], Component)]
    return f"`{key}` belongs {' or '.join(_in_words(path) for path in paths[:2])}"


def unknown_type_hint(name: str, names: Sequence[str], family: str | None) -> str:
    """Return a hint for a type that its family does not have."""
    present = next((n for n, s in registered(family or "").items() if name in s.formerly), None)
    if present is not None:
        return f"`{name}` is now `{present}`"
    near = nearest(name, names)
    source, _, rest = name.partition(":")  # as in `--model torchvision:resnet18`
    if rest and source in names:
        return f"write `{{type: {source}, name: {clipped(rest)}}}`"
    if family == "model" and (near is None or similarity_ratio(name, near) < _SURE):
        published = f"`{{type: torchvision, name: {clipped(name)}}}`"
        if near is not None:
            return f"did you mean `{near}`, or {published}?"
        return f"a model of torchvision or timm is written {published}"
    return f"types: {listed(names)}" if near is None else f"did you mean `{near}`?"


def _preferred(paths: list[_Path], wanted: Callable[[_Path], bool]) -> list[_Path]:
    return [path for path in paths if wanted(path)] or paths


@cache
def _sections() -> tuple[tuple[_Path, type[Section]], ...]:
    """Return the sections of a recipe and of an arm, with paths from the top of a file."""
    groups = {("arms",), ("stages",)}
    shared = [found for found in sections_below(node_of(Recipe)) if found[0][:1] not in groups]
    return (*shared, *(found for found in sections_below(node_of(Arm)) if found[0]))


def _in_words(path: tuple[str, ...]) -> str:
    if not path:
        return "at the top of the recipe"
    noun = LISTS.get(path[0])
    if noun is None:
        return f"under `{'.'.join(path)}`"
    return f"in a {noun}" if len(path) == 1 else f"under `{'.'.join(path[1:])}` of a {noun}"


def _schema_path(path: Sequence[Step]) -> tuple[str, ...]:
    """Remove names of arms, stages and rules, and indices, from a path."""
    steps = list(path)
    if steps[:1] in (["arms"], ["stages"]):
        steps = steps[2:]
    if steps and steps[0] in LISTS:
        del steps[1:2]
    return tuple(step for step in steps if isinstance(step, str))
