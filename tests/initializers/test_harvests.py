"""Filters drawn from harvests: pending ones show and refuse, measured ones have their moments."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.harvest import Harvest, Harvested, harvest_key
from mimetic.errors import RunError
from mimetic.graph.site import Geometry
from mimetic.recipe.rule import Rule

FILTERS = {"covariance": {"type": "filters", "from": {"stage": "small"}}}
SMALL = Geometry(6, 6, (3, 3), (1, 1), 6)


def harvested(rule: Rule, *, measured: bool = True, statistic: str = "filters") -> dict[str, Harvest]:
    """Return a harvest of two depthwise layers for a rule."""
    stream = torch.Generator().manual_seed(0)
    factors = [torch.randn(6, 9, generator=stream, dtype=torch.float64) for _ in range(2)]
    layers = tuple(
        Harvested(
            f"blocks.{index}",
            "depthwise_conv",
            float(index),
            SMALL,
            Covariance(factor, PatchGeometry(1, (3, 3))) if measured else None,
        )
        for index, factor in enumerate(factors)
    )
    assert rule.covariance is not None
    return {harvest_key(rule.covariance): Harvest("stage small", statistic, layers, statistic == "filters")}


def test_filters_scatter_as_promised(make: SimpleNamespace) -> None:
    """Moments hold at the depth of the layer, in the middle between the two of the harvest."""
    rule, site = make.rule(**FILTERS), make.conv(400, 400, 5, 400)
    found = make.resolve(rule, site, ("weight",), harvested(rule))
    weight = found.sample(make.keyed(), nn.Identity())["weight"]
    moments = found.moments["weight"]
    error = 5.0 * moments.std / math.sqrt(moments.draws)
    assert weight.shape == (400, 1, 5, 5)
    assert pytest.approx(moments.std, abs=error) == float(weight.square().mean().sqrt())
    assert found.notes == (
        "depth 0.50 between blocks.0 and blocks.1 of stage small",
        "resized 3×3→5×5, trace kept",
    )


def test_what_was_measured_enters_the_plan(make: SimpleNamespace) -> None:
    """The digest of the factor is one of the arguments: another harvest is another plan."""
    rule, site = make.rule(**FILTERS), make.conv(8, 8, 3, 8)
    found = make.resolve(rule, site, ("weight",), harvested(rule)).arguments
    assert found["covariance"]["from"] == {"stage": "small", "seeds": "own"}
    assert len(found["digest"]) == 32
    assert "harvest" not in found


def test_pending_covariances_are_shown_and_not_drawn(make: SimpleNamespace) -> None:
    """Before the network is trained there are notes and no moments, and sampling says what to do."""
    rule, site = make.rule(**FILTERS, scale="kaiming"), make.conv(8, 8, 5, 8)
    pending = make.resolve(rule, site, ("weight",), harvested(rule, measured=False))
    ready = make.resolve(rule, site, ("weight",), harvested(rule))
    assert (pending.name, pending.notes, dict(pending.moments)) == ("gaussian", ready.notes, {})
    assert pending.arguments["harvest"] == "pending"
    assert "digest" not in pending.arguments
    with pytest.raises(RunError) as raised:
        pending.sample(make.keyed(), nn.Identity())
    assert str(raised.value) == (
        "blocks.1: filters of stage small is not harvested yet, so there is nothing to draw from; train its "
        "network and resolve the plan again (`mimetic run` does)"
    )


@pytest.mark.parametrize("channels", [1, 12])
def test_spatial_covariances_fit_any_number_of_channels(make: SimpleNamespace, channels: int) -> None:
    """Each input channel draws on its own, and the plan says so."""
    settings: dict[str, Any] = {"covariance": {**FILTERS["covariance"], "kind": "depthwise_conv"}}
    rule = make.rule(**settings)
    found = make.resolve(rule, make.conv(channels, 16, 3), ("weight",), harvested(rule))
    drawn = [note for note in found.notes if note.startswith("a spatial covariance")]
    assert len(drawn) == (channels > 1)
    assert found.sample(make.keyed(), nn.Identity())["weight"].shape == (16, channels, 3, 3)
