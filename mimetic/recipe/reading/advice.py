"""What to write instead of a key that a place does not have."""

from collections.abc import Iterator, Sequence

from mimetic.config.base import Section
from mimetic.config.errors import Step
from mimetic.config.registry import Component, registered
from mimetic.config.suggest import likeness, listed, nearest
from mimetic.recipe.reading.grammar import Place, fields_of, homes, place
from mimetic.recipe.reading.group import LISTS
from mimetic.recipe.recipe import Arm, Recipe

_SURE = 0.8


def unknown_key(key: str, here: Place, path: Sequence[Step]) -> str:
    """Return a hint for a key that its section does not have.

    A near name in the section comes first, then a section that has the key, then the keys there are.

    Args:
        key: The unknown key.
        here: The place whose section lacks it.
        path: Keys that lead to the section.
    """
    keys = here.keys()
    near = nearest(key, keys)
    if near is not None and likeness(key, near) >= _SURE:
        return f"did you mean `{near}`?"
    other_types = _types_with(key, here)
    if other_types:
        return f"`{key}` belongs to {other_types}"
    home = home_of(key, _schema_path(path))
    if home is not None:
        return home
    if near is not None:
        return f"did you mean `{near}`?"
    return f"keys here: {listed(keys)}"


def home_of(key: str, near: Sequence[str] = ()) -> str | None:
    """Return a hint that names the sections which have a key: those close to a path, and the shallowest."""
    homes_of_key = {path: section for path, section in _sections() if key in fields_of(section)}
    if key == "type" or not homes_of_key:
        return None
    found = list(homes_of_key)
    # Rewrites share `match` and `freeze` with rules, which are far more often meant.
    elsewhere = [path for path in found if path[:1] != ("surgery",)]
    found = elsewhere if elsewhere else found
    if len(near) > 0:
        inner = [path for path in found if path[: len(near)] == tuple(near)]
        sibling = [path for path in found if path[:1] == tuple(near)[:1]]
        found = inner if inner else sibling if sibling else found
    shallowest = min(len(path) for path in found)
    found = [path for path in found if len(path) <= shallowest + 1]
    certain = {path[:1] for path in found if not issubclass(homes_of_key[path], Component)}
    found = [p for p in found if p[:1] not in certain or not issubclass(homes_of_key[p], Component)]
    return f"`{key}` belongs {' or '.join(_where(path) for path in found[:2])}"


def _sections() -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    for path, section in homes(place(Recipe)):
        if path[:1] not in {("arms",), ("stages",)}:
            yield path, section
    for path, section in homes(place(Arm)):
        if path:
            yield path, section


def _where(path: tuple[str, ...]) -> str:
    if not path:
        return "at the top of the recipe"
    noun = LISTS.get(path[0])
    if noun is None:
        return f"under `{'.'.join(path)}`"
    return f"in a {noun}" if len(path) == 1 else f"under `{'.'.join(path[1:])}` of a {noun}"


def _types_with(key: str, here: Place) -> str:
    if here.family is None:
        return ""
    names = [name for name, section in registered(here.family).items() if key in fields_of(section)]
    if not names:
        return ""
    return f"the type{'s' if len(names) > 1 else ''} {listed(names)}"


def _schema_path(path: Sequence[Step]) -> tuple[str, ...]:
    """Leave names of arms, stages and rules and indices out of a path."""
    steps = list(path)
    if steps[:1] in (["arms"], ["stages"]):
        steps = steps[2:]
    if steps and steps[0] in LISTS:
        del steps[1:2]
    return tuple(step for step in steps if isinstance(step, str))
