"""Mistakes in who harvests which stage, told from the tree of a recipe, before and beside the schema's."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from mimetic.config.errors import Issue, Step
from mimetic.config.text.tree import List, Map, find
from mimetic.covariance.config import TrainedRef
from mimetic.recipe.reading.grammar import Place
from mimetic.recipe.reading.group import GROUPS
from mimetic.recipe.recipe import MAX_SEEDS
from mimetic.recipe.stages import StageGraph, StageRefError, Use, misuses, node_of, unused


def issues_of_stages(tree: Map) -> list[Issue]:
    """Return what is wrong with the stages a composed recipe harvests, whether or not the rest is right."""
    return _told(misuses(_harvesting(tree)), tree)


def unused_stages(tree: Map) -> list[Issue]:
    """Return the stages nothing harvests, in a recipe that is right but for that."""
    return _told(unused(_harvesting(tree)), tree)


def idle_stages(tree: Map) -> set[str]:
    """Return the names of the stages nothing harvests."""
    return {str(misuse.path[1]) for misuse in unused(_harvesting(tree))}


def without_stages(tree: Map, names: Collection[str]) -> Map:
    """Return a composed recipe that lacks some of its stages."""
    if not names:
        return tree
    stages = tree["stages"].without(*names)
    rest = tree.without("stages")
    return rest.put("stages", stages, tree.spots["stages"]) if stages else rest


def _told(wrong: Iterable[StageRefError], tree: Map) -> list[Issue]:
    spots = [(misuse, found) for misuse in wrong if (found := find(tree, misuse.path)) is not None]
    return [Issue(misuse.message, spot.path, spot.value, misuse.hint) for misuse, spot in spots]


def _harvesting(tree: Map) -> StageGraph:
    stages = {
        name: None if stage.get("seeds") is None else _seeds(stage["seeds"])
        for name, stage in tree.get("stages", {}).items()
    }
    return StageGraph(tuple(tree["arms"]), stages, _seeds(tree.get("seeds", 1)), tuple(_uses(tree)))


def _seeds(value: Any) -> tuple[int, ...]:
    """Return the seeds a value stands for; none where it is not understood."""
    if isinstance(value, int):
        return tuple(range(min(value, MAX_SEEDS)))
    numbers = isinstance(value, List) and all(isinstance(seed, int) for seed in value)
    return tuple(value) if numbers else ()


def _uses(tree: Map) -> Iterator[Use]:
    for key, group in GROUPS.items():
        for name, member in tree.get(key, {}).items():
            for path, origin in _origins(member["init"], group.place.below("init"), (key, name, "init")):
                node = node_of(stage=origin.get("stage"), arm=origin.get("arm"))
                if node is not None:
                    yield Use((key, name), node, path, _asked(origin.get("seeds", "own")))


def _asked(seeds: Any) -> str | tuple[int, ...] | None:
    return seeds if isinstance(seeds, str) else _seeds(seeds) if isinstance(seeds, List) else None


def _origins(node: Any, place: Place, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], Map]]:
    """Yield the maps that stand where the language has a trained network."""
    place = place.chosen(node)
    if isinstance(node, Map):
        if place.section is TrainedRef:
            yield path, node
        for key, value in node.items():
            yield from _origins(value, place.below(key), (*path, key))
    elif isinstance(node, List):
        for index, value in enumerate(node):
            yield from _origins(value, place.below(index), (*path, index))
