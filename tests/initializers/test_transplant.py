"""Weights copied from another network: which entries, from which layer, and the errors where none fit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mimetic.config.errors import RecipeError
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import RunError
from mimetic.graph.sites import find_sites
from mimetic.initializers.transplant import padded, selected, selected_indices, tiled
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

ORIGIN = {"trial": "somewhere"}


@pytest.mark.parametrize(
    ("larger", "smaller", "expected"),
    [
        (384, 192, [0, 2, 4, 6, 8]),
        (768, 320, [0, 2, 5, 7, 10, 12]),
        (7, 5, [0, 2, 3, 4, 6]),
        (12, 8, [0, 2, 3, 5, 6, 8, 9, 11]),
        (10, 4, [0, 3, 6, 9]),
        (768, 40, [0, 20, 39, 59, 79, 98]),
        (5, 1, [0]),
        (3, 3, [0, 1, 2]),
    ],
)
def test_indices_are_the_published_ones(larger: int, smaller: int, expected: list[int]) -> None:
    """The lists that the authors' code gives."""
    indices = selected_indices(larger, smaller)

    assert indices[: len(expected)] == expected
    assert len(indices) == smaller


@pytest.mark.slow
def test_indices_are_those_of_torch() -> None:
    """The published expression, for every pair of sides below 300."""
    assert selected_indices(48, 45)[22] == 23  # the exact point is 23.5, that of float32 23.499998
    for larger in range(1, 300):
        for smaller in range(1, larger + 1):
            if larger % smaller:
                expected = torch.round(torch.linspace(0, larger - 1, smaller)).long().tolist()
                assert selected_indices(larger, smaller) == expected


def test_the_last_entries_are_the_published_ones() -> None:
    """768 → 320 ends at 762, 765, 767."""
    assert selected_indices(768, 320)[-3:] == [762, 765, 767]


@given(st.integers(1, 40), st.integers(1, 40))
def test_indices_rise_from_the_first_entry(one: int, other: int) -> None:
    """S different indices below T, in order, beginning with 0."""
    larger, smaller = max(one, other), min(one, other)
    indices = selected_indices(larger, smaller)

    assert indices[0] == 0
    assert indices == sorted(set(indices))
    assert indices[-1] < larger


def test_sides_are_selected_independently() -> None:
    """Entry (i, j) is the other's at the indices of i and of j."""
    tensor = torch.arange(7 * 12.0).view(7, 12)
    rows, columns = selected_indices(7, 5), selected_indices(12, 8)

    assert torch.equal(selected(tensor, (5, 8)), tensor[rows][:, columns])


def test_tiling_repeats_each_part() -> None:
    """W'[i, j] = W[i mod O, j mod I]; a fused tensor is repeated part by part."""
    tensor = torch.arange(6.0).view(3, 2)

    assert tiled(tensor, (5, 3))[4].tolist() == [2.0, 3.0, 2.0]
    assert tiled(tensor, (5, 3), repeat=True)[:, 0].tolist() == [0.0, 0.0, 2.0, 2.0, 4.0]
    assert tiled(tensor, (5, 3), repeat=True)[0].tolist() == [0.0, 0.0, 1.0]
    assert tiled(tensor, (6, 2), chunks=3).tolist() == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]


def _network(width: int, depth: int) -> nn.Module:
    return nn.ModuleDict({"blocks": nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))})


def _plan(ours: nn.Module, theirs: nn.Module, kind: str, *, trained: bool = True, **settings: Any) -> Plan:
    rule = {"id": "take", "match": {"param": ".*"}, "init": {"type": kind, "from": ORIGIN, **settings}}
    arm = load({"recipe": 1, "name": "r", "init": [rule]}).arms["main"]
    graph = find_sites(theirs)
    network = TrainedNetwork("trial somewhere", graph, theirs, None)
    network = network if trained else TrainedNetwork("trial somewhere", graph)
    section = arm.init[0].init
    assert section is not None
    return resolve(arm, find_sites(ours), seed=0, harvests={harvest_key(section): network})


def test_the_first_blocks_are_selected_by_name() -> None:
    """A shallower network takes the first blocks, biases too."""
    ours, theirs = _network(4, 2), _network(8, 5)
    _plan(ours, theirs, "weight_selection").apply(ours)

    for block in range(2):
        for name in ("weight", "bias"):
            expected = theirs.get_parameter(f"blocks.{block}.{name}")
            assert torch.equal(
                ours.get_parameter(f"blocks.{block}.{name}"), selected(expected, (4, 4)[: expected.ndim])
            )


class _LargestCopy(TorchDispatchMode):
    """Record the size of the largest tensor with values that is allocated inside."""

    largest = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Run one call."""
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        is_real = isinstance(result, torch.Tensor) and not result.is_meta
        if is_real and result.untyped_storage().data_ptr() not in given:
            self.largest = max(self.largest, result.numel())
        return result


def test_a_plan_copies_no_weights() -> None:
    """Tensors of the other network are copied when the plan is applied, one layer at a time."""
    ours, theirs = _network(16, 2), _network(32, 2)
    with _LargestCopy() as planning:
        plan = _plan(ours, theirs, "weight_selection")
    with _LargestCopy() as applying:
        plan.apply(ours)

    assert planning.largest < 16 * 16
    assert applying.largest >= 16 * 16


def test_tiling_keeps_ends_and_norm() -> None:
    """First and last block are the other's, the middle ones repeat; each keeps its Frobenius norm."""
    ours, theirs = _network(7, 6), _network(3, 4)
    _plan(ours, theirs, "weight_tiling", blocks=6).apply(ours)

    for block, source in enumerate([0, 1, 2, 1, 2, 3]):
        weight, taken = (
            n.get_parameter(f"blocks.{b}.weight").detach() for n, b in ((ours, block), (theirs, source))
        )
        repeated = tiled(taken, (7, 7))
        torch.testing.assert_close(weight, repeated * (taken.norm() / repeated.norm()))
        bias = theirs.get_parameter(f"blocks.{source}.bias").detach()
        expected = torch.cat([bias, torch.zeros(4)])
        torch.testing.assert_close(ours.get_parameter(f"blocks.{block}.bias").detach(), expected)


@pytest.mark.parametrize("vectors", ["pad", "tile"])
def test_vectors_are_padded_as_published(vectors: str) -> None:
    """Biases continue with zeros, norm weights with ones; a fused bias map by map; or all are tiled."""

    def network(width: int) -> nn.Module:
        model = nn.ModuleDict({"norm": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width)})
        for i, p in enumerate(model.parameters()):
            nn.init.constant_(p, i + 2.0)
        return model

    ours, theirs = network(5), network(2)
    _plan(ours, theirs, "weight_tiling", chunks=1, vectors=vectors).apply(ours)
    norms = [ours["norm"].weight.tolist(), ours["norm"].bias.tolist()]
    assert norms == (
        [[2.0, 2.0, 1.0, 1.0, 1.0], [3.0, 3.0, 0.0, 0.0, 0.0]] if vectors == "pad" else [[2.0] * 5, [3.0] * 5]
    )
    assert padded(torch.ones(6), 9, 0.0, chunks=3).tolist() == [1.0, 1.0, 0.0] * 3


def test_what_is_not_trained_is_pending() -> None:
    """The plan shows what will be taken; it cannot be applied, and its hash is another."""
    ours, theirs = _network(4, 2), _network(8, 5)
    pending, made = (_plan(ours, theirs, "weight_selection", trained=t) for t in (False, True))

    assert pending.entries[0].arguments["harvest"] == "pending"
    assert pending.entries[0].notes[0] == "weight: 8×8 → 4×4 of trial somewhere, `blocks.0.weight`"
    assert pending.hash != made.hash
    with pytest.raises(RunError, match="trial somewhere is not trained yet"):
        pending.apply(ours)


@pytest.mark.parametrize(
    ("ours", "theirs", "kind", "message"),
    [
        (_network(4, 3), _network(8, 2), "weight_selection", "has no parameter `blocks.2.weight`"),
        (_network(9, 2), _network(8, 2), "weight_selection", "use `weight_tiling` for these layers"),
        (_network(7, 2), _network(8, 2), "weight_tiling", "use `weight_selection` for these layers"),
        (
            nn.ModuleDict({"blocks": nn.Sequential(nn.Conv1d(4, 4, 1))}),
            _network(8, 1),
            "weight_selection",
            r"has one of shape \(8, 8\) there, ours is \(4, 4, 1\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(ours: nn.Module, theirs: nn.Module, kind: str, message: str) -> None:
    """Both shapes are named, with what could be done."""
    with pytest.raises(RecipeError, match=message):
        _plan(ours, theirs, kind)


def test_equal_weights_give_equal_plans() -> None:
    """The hash depends on the weights taken."""
    ours, theirs = _network(4, 2), _network(8, 5)
    first, again = _plan(ours, theirs, "weight_selection"), _plan(ours, theirs, "weight_selection")
    with torch.no_grad():
        theirs.get_parameter("blocks.1.bias")[0] += 1.0
    other = _plan(ours, theirs, "weight_selection")

    assert first.hash == again.hash != other.hash


def test_resolving_reads_no_tensor() -> None:
    """Weights are copied when they are drawn: a plan does not hold a second network."""
    ours, theirs = _network(4, 2), _network(8, 5)
    made = _plan(ours, theirs, "weight_selection")
    with torch.no_grad():
        theirs.get_parameter("blocks.0.weight").fill_(3.0)
    made.apply(ours)

    assert bool((ours.get_parameter("blocks.0.weight") == 3.0).all())
