"""How one layer is laid over another.

Maps merge key by key; a map whose `type` changes, or that gives another of a section's alternatives,
replaces the old one; scalars and lists replace.
Rules merge by id: an inherited rule keeps its place, a new one goes in front of the inherited ones,
because the first match wins and the more specific speaks first.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from mimetic.config.errors import Issue, clipped
from mimetic.config.registry import registered
from mimetic.config.suggest import choice
from mimetic.config.text.tree import List, Map, NodePosition
from mimetic.recipe.reading.grammar import Place, fields_of, type_of

_EXCLUDES = {"init": ("covariance", "scale"), "covariance": ("init",)}


def merge(
    base: tuple[Any, NodePosition], over: tuple[Any, NodePosition], place: Place
) -> tuple[Any, NodePosition]:
    """Return a value laid over another, with its spot; neither is changed.

    A section stays where it was begun, since its changed values have spots of their own.

    Args:
        base: The inherited value and where it was written.
        over: What is laid over it, and where that was written.
        place: What the language allows there.
    """
    if not isinstance(base[0], Map) and not isinstance(over[0], Map):
        return over
    below, above = _spelled_out(*base, place), _spelled_out(*over, place)
    if not isinstance(below, Map) or not isinstance(above, Map) or _replaces(below, above, place):
        return over
    return merge_maps(below, above, place), base[1]


def merge_maps(base: Map, over: Map, place: Place) -> Map:
    """Return a map laid over another, key by key."""
    kind = place.chosen(over if type_of(over) is not None else base)
    merged = Map(base.here, over.last)
    for key, value, spot in base.entries():
        if key in over:
            merged.put(key, *merge((value, spot), (over[key], over.spots[key]), kind.below(key)))
        else:
            merged.put(key, value, spot)
    for key, value, spot in over.entries():
        if key not in base:
            merged.put(key, value, spot)
    return merged


def _spelled_out(value: Any, spot: NodePosition, place: Place) -> Any:
    """Write a text that is short for a map as that map."""
    if isinstance(value, str) and place.shorthand is not None:
        return Map(spot).put(place.shorthand, value, spot)
    return value


def _replaces(base: Map, over: Map, place: Place) -> bool:
    """Tell whether a map is another kind of thing than the one it is laid over."""
    if place.family is not None:
        new = type_of(over)
        return new is not None and type_of(base) is not None and new != type_of(base)
    keys = () if place.section is None else place.section.alternatives
    old, given = ({key for key in keys if tree.get(key) is not None} for tree in (base, over))
    return bool(old and given) and old.isdisjoint(given)


def merge_rules(inherited: List, own: List, place: Place, *, noun: str = "rule") -> List:
    """Return a list of rules, or of rewrites, laid over an inherited one, by id.

    A rule without an id is always new: it is called `rule-1`, `rule-2`, … by its position in its own
    list, or by the next number that is free; `noun` is the word before the number.
    """
    known = {rule["id"] for rule in inherited if isinstance(rule.get("id"), str)}
    taken = known | {rule["id"] for rule in own if isinstance(rule.get("id"), str)}
    merged, changes = List(inherited.here if len(inherited) > 0 else own.here), dict[str, Map]()
    for index, (rule, spot) in enumerate(own.entries()):
        if "id" not in rule:
            name = _free(noun, index + 1, taken)
            taken.add(name)
            merged.add(_with_id(rule, name), spot)
        elif isinstance(rule["id"], str) and rule["id"] in known:
            changes[rule["id"]] = rule
        else:
            merged.add(rule, spot)
    for rule, spot in inherited.entries():
        change = changes.get(rule["id"]) if isinstance(rule.get("id"), str) else None
        merged.add(rule if change is None else merge_rule(rule, change, place), spot)
    return merged


def merge_rule(base: Map, over: Map, place: Place) -> Map:
    """Return a rule laid over the inherited rule of the same id.

    A way to begin replaces the other way: `init` drops an inherited `covariance` and `scale`,
    `covariance` drops an inherited `init`. A rewrite of another type keeps what all types have.
    """
    if place.family is not None and _replaces(base, over, place):
        shared = set.intersection(*(set(fields_of(section)) for section in registered(place.family).values()))
        return merge_maps(base.without(*(key for key in base if key not in shared)), over, place)
    drops = [key for given, keys in _EXCLUDES.items() if over.get(given) is not None for key in keys]
    return merge_maps(base.without(*drops), over, place)


def _with_id(rule: Map, name: str) -> Map:
    named = Map(rule.here, rule.last).put("id", name, rule.here)
    for key, value, spot in rule.entries():
        named.put(key, value, spot)
    return named


def _free(noun: str, number: int, taken: Iterable[str]) -> str:
    while f"{noun}-{number}" in taken:
        number += 1
    return f"{noun}-{number}"


def check_removals(ids: Sequence[str], names: List, issues: list[Issue]) -> None:
    """Note ids that a layer removes and nothing inherited has."""
    for name, spot in names.entries():
        if name not in ids:
            hint = choice(name, ids, label="inherited rules") if ids else "nothing is inherited here"
            issues.append(
                Issue(f"no inherited rule has the id `{clipped(name)}`", spot.path, spot.value, hint)
            )


def without_removed(inherited: List, names: List) -> List:
    """Return inherited rules without those a layer removes."""
    kept = List(inherited.here)
    for rule, spot in inherited.entries():
        if rule.get("id") not in names:
            kept.add(rule, spot)
    return kept
