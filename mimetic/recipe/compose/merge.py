"""Merge one layer over another.

Maps merge key by key; a map with another `type`, or with another of a section's alternatives, replaces the
old one; scalars and lists replace. Rules merge by id: an inherited rule stays where it is, a new one goes
before the inherited ones, because the first match wins and new rules are more specific.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from mimetic.config.errors import Issue, clipped
from mimetic.config.registry import registered
from mimetic.config.suggest import choice
from mimetic.config.text.tree import List, Map, NodePosition
from mimetic.recipe.validate.schema_node import SchemaNode, fields_of, type_of

_EXCLUDES = {"init": ("covariance", "scale"), "covariance": ("init",)}


def merge(
    base: tuple[Any, NodePosition], over: tuple[Any, NodePosition], schema: SchemaNode
) -> tuple[Any, NodePosition]:
    """Return a value merged over another, with its position; neither is changed.

    A merged section has the position of the inherited one; each changed value has its new position.

    `schema` is what the language allows there.
    """
    if not isinstance(base[0], Map) and not isinstance(over[0], Map):
        return over
    below, above = _spelled_out(*base, schema), _spelled_out(*over, schema)
    if not isinstance(below, Map) or not isinstance(above, Map) or _replaces(below, above, schema):
        return over
    return merge_maps(below, above, schema), base[1]


def merge_maps(base: Map, over: Map, schema: SchemaNode) -> Map:
    """Return a map merged over another, key by key."""
    kind = schema.chosen(over if type_of(over) is not None else base)
    merged = Map(base.here, over.last)
    for key, value, spot in base.entries():
        if key in over:
            merged.put(key, *merge((value, spot), (over[key], over.spots[key]), kind.below(key)))
        else:
            merged.put(key, value, spot)
    return merged.put_all(over.without(*base).entries())


def _spelled_out(value: Any, spot: NodePosition, schema: SchemaNode) -> Any:
    """Return the map that a shorthand text abbreviates."""
    if isinstance(value, str) and schema.shorthand is not None:
        return Map(spot).put(schema.shorthand, value, spot)
    return value


def _replaces(base: Map, over: Map, schema: SchemaNode) -> bool:
    """Return whether a map replaces the inherited one instead of merging with it."""
    if schema.family is not None:
        new = type_of(over)
        return new is not None and type_of(base) is not None and new != type_of(base)
    keys = () if schema.section is None else schema.section.alternatives
    old, given = ({key for key in keys if tree.get(key) is not None} for tree in (base, over))
    return bool(old and given) and old.isdisjoint(given)


def merge_rules(inherited: List, own: List, schema: SchemaNode, *, noun: str = "rule") -> List:
    """Return a list of rules, or of rewrites, merged over an inherited one, by id.

    A rule without an id is always new and gets the id `rule-1`, `rule-2`, … by its position in its own list,
    or by the next free number; `noun` is the word before the number.
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
        merged.add(rule if change is None else merge_rule(rule, change, schema), spot)
    return merged


def merge_rule(base: Map, over: Map, schema: SchemaNode) -> Map:
    """Return a rule merged over the inherited rule with the same id.

    `init` removes an inherited `covariance` and `scale`, and `covariance` an inherited `init`. A rewrite of
    another type inherits only the keys that all types have.
    """
    if schema.family is not None and _replaces(base, over, schema):
        sections = registered(schema.family).values()
        shared = set.intersection(*(set(fields_of(section)) for section in sections))
        return merge_maps(base.only(*shared), over, schema)
    drops = [key for given, keys in _EXCLUDES.items() if over.get(given) is not None for key in keys]
    return merge_maps(base.without(*drops), over, schema)


def _with_id(rule: Map, name: str) -> Map:
    return Map(rule.here, rule.last).put("id", name, rule.here).put_all(rule.entries())


def _free(noun: str, number: int, taken: Iterable[str]) -> str:
    while f"{noun}-{number}" in taken:
        number += 1
    return f"{noun}-{number}"


def check_removals(ids: Sequence[str], names: List, issues: list[Issue]) -> None:
    """Report removed ids that no inherited rule has."""
    for name, spot in names.entries():
        if name not in ids:
            hint = choice(name, ids, label="inherited rules") if ids else "nothing is inherited here"
            message = f"no inherited rule has the id `{clipped(name)}`"
            issues.append(Issue(message, spot.path, spot.value, hint, code="MIM-R061"))


def without_removed(inherited: List, names: List) -> List:
    """Return inherited rules without the removed ones."""
    remaining = List(inherited.here)
    for rule, spot in inherited.entries():
        if rule.get("id") not in names:
            remaining.add(rule, spot)
    return remaining
