"""Expand `sweep:` in an arm to one arm per combination of values.

A candidate extends the swept arm and sets one value of each path, as `--set` would. Without `study.select`
the candidates take the arm's place; with it the arm stays, and takes the values of its best candidate.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from mimetic.config.errors import Issue, clipped
from mimetic.config.text.tree import List, Map, NodePosition, plain
from mimetic.recipe.compose.composition import Composition
from mimetic.recipe.compose.group import ARMS
from mimetic.recipe.compose.overrides import layer_of

MAX_CANDIDATES = 200
"""Maximum number of candidates of a recipe."""

_LONGEST = 80
"""Maximum length of an arm's name."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A swept path, its values, and a label for each of them."""

    path: str
    values: List
    labels: tuple[str, ...]


def _swept_arms(layers: Sequence[Map]) -> dict[str, Map]:
    """Return the sweeps by arm; the last layer that has one counts."""
    names = Composition(layers, []).names(ARMS)
    given = {
        name: [
            layer[ARMS.key][name]["sweep"]
            for layer in layers
            if "sweep" in layer.get(ARMS.key, {}).get(name, ())
        ]
        for name in names
    }
    return {name: sweeps[-1] for name, sweeps in given.items() if sweeps and sweeps[-1]}


def with_candidates(
    layers: Sequence[Map], issues: list[Issue], *, selects: bool
) -> tuple[list[Map], Collection[str]]:
    """Return the layers with those of all candidates, and the arms whose place these take.

    Args:
        layers: The files, first to last.
        issues: Receives the errors.
        selects: Whether the swept arm takes the values of its best candidate.
    """
    sweeps = _swept_arms(layers)
    count = sum(prod(len(values) for values in sweep.values()) for sweep in sweeps.values())
    if count > MAX_CANDIDATES:
        spot = next(iter(sweeps.values())).here
        message = f"the sweeps have {count} combinations, and at most {MAX_CANDIDATES} are allowed"
        issues.append(Issue(message, spot.path, spot.value, "sweep fewer values", code="MIM-R046"))
        return list(layers), ()
    # Each candidate is a few more layers: the arm, and its values one by one.
    below, taken = list(layers), set(Composition(layers, []).names(ARMS))
    for name, sweep in sweeps.items():
        before = tuple(below)  # a candidate does not depend on the arm's other ones
        for candidate, values in _combinations(name, sweep):
            if candidate in taken:
                message = f"two arms would have the name `{clipped(candidate)}`"
                hint = "rename the arm that is written, or change the values"
                issues.append(Issue(message, sweep.here.path, sweep.here.value, hint, code="MIM-R047"))
                continue
            taken.add(candidate)
            own = [_candidate(name, candidate, sweep, selects=selects)]
            for path, value, at in values:
                whole = f"{ARMS.key}.{candidate}.{path}"
                own += _assignment(whole, value, at, (*before, *own), issues)
            below += own
    return below, () if selects else sweeps


def _combinations(name: str, sweep: Map) -> Iterator[tuple[str, list[tuple[str, object, NodePosition]]]]:
    """Yield the name of each candidate, and its paths with their values and positions."""
    axes = [_axis(path, values) for path, values in sweep.items()]
    for choice in product(*(range(len(axis.values)) for axis in axes)):
        pairs = list(zip(axes, choice, strict=True))
        label = "-".join(axis.labels[index] for axis, index in pairs)
        yield (
            f"{name}-{label}"[:_LONGEST],
            [(axis.path, axis.values[index], axis.values.spots[index]) for axis, index in pairs],
        )


def _axis(path: str, values: List) -> _Axis:
    """Return a path with labels such as `lr0.01`; maps and lists are numbered."""
    word = re.sub(r"[^A-Za-z0-9_]", "", path.rpartition(".")[2])
    texts = [_text(value) for value in values]
    if "" in texts or len(set(texts)) < len(texts):
        texts = [str(number) for number in range(1, len(texts) + 1)]
    return _Axis(path, values, tuple(word + text for text in texts))


def _text(value: object) -> str:
    """Return a value as a part of a name; empty for maps and lists."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}".replace("+", "")
    return "-" + re.sub(r"[^A-Za-z0-9._]", "", str(value)) if isinstance(value, str | bool) else ""


def _candidate(name: str, candidate: str, sweep: Map, *, selects: bool) -> Map:
    here = sweep.here
    arm = Map(here).put("extends", List(here).add(name, here), here)
    if selects:
        arm.put("candidate_of", name, here)
    return Map(here).put(ARMS.key, Map(here).put(candidate, arm, here), here)


def _assignment(
    path: str, value: object, at: NodePosition, below: Sequence[Map], issues: list[Issue]
) -> list[Map]:
    """Return the layer that sets a value; its positions, and those of errors, are the value's in the file."""
    wrong: list[Issue] = []
    text = f"{path}={json.dumps(plain(value), ensure_ascii=False)}"
    layer = layer_of(text, 0, Composition(below, []), wrong, [])
    issues += [replace(issue, mark=at.value) for issue in wrong]
    return [] if layer is None else [_moved(layer, at)]


def _moved(tree: Map, at: NodePosition) -> Map:
    """Return a map all of whose values are at one place of a file."""
    moved = Map(_place(tree.here, at))
    for key, value, spot in tree.entries():
        moved.put(key, _moved_value(value, at), _place(spot, at))
    return moved


def _moved_value(value: object, at: NodePosition) -> object:
    if isinstance(value, List):
        entries = List(_place(value.here, at))
        for entry, spot in value.entries():
            entries.add(_moved_value(entry, at), _place(spot, at))
        return entries
    return _moved(value, at) if isinstance(value, Map) else value


def _place(spot: NodePosition, at: NodePosition) -> NodePosition:
    return NodePosition(spot.path, at.value, at.start)
