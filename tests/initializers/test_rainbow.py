"""The part of one layer in a resampling: what plans say of it, and what is refused before anything runs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mimetic.covariance.context import Context
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import RunError, UserError
from mimetic.graph.site import Site
from mimetic.graph.sites import find_sites
from mimetic.initializers.resolved import ResolvedInit
from mimetic.plans.choose import resolve_init
from mimetic.recipe.rule import Rule

RAINBOW = {"type": "rainbow", "from": {"stage": "small"}}
IMAGES = torch.zeros(2, 3, 8, 8)


def net(width: int = 4, **changes: Any) -> nn.Sequential:
    """Return a network with a layer of each kind that can be resampled, and of some that cannot."""
    options = {"kernel_size": 3, "stride": 1, "inputs": 3, "classes": 5, "bias": True, **changes}
    return nn.Sequential(
        nn.Conv2d(options["inputs"], width, options["kernel_size"], options["stride"], bias=options["bias"]),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.ConvTranspose2d(width, width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, options["classes"]),
    )


def site_of(model: nn.Module, layer: str) -> Site:
    """Return a layer's site."""
    images = torch.zeros(2, model[0].in_channels, 8, 8)
    return next(site for site in find_sites(model, images).sites if site.layer == layer)


def drawn(layer: str, model: nn.Module, rule: Rule, *, trained: bool = False, **names: Any) -> ResolvedInit:
    """Return a layer's draw from a narrower network, trained or not."""
    old = net()
    network = TrainedNetwork("stage small", find_sites(old, IMAGES))
    if trained:
        network = TrainedNetwork("stage small", network.graph, old, IMAGES)
    site = site_of(model, layer)
    claimed = names.get("names", tuple(parameter.local for parameter in site.parameters))
    return resolve_init(rule, site, Context(claimed, {harvest_key(rule.init): network}))


@pytest.fixture
def rule(make: SimpleNamespace) -> Rule:
    """Return a rule that resamples what it matches."""
    return make.rule(init=RAINBOW)


@pytest.mark.parametrize(
    ("layer", "note"),
    [
        ("0", "6 filters resampled from 4 of stage small"),
        ("1", "statistics measured behind the resampled layers of stage small"),
        ("6", "copied from stage small, in the new channels' basis"),
    ],
)
def test_plans_say_what_becomes_of_each_layer(rule: Rule, layer: str, note: str) -> None:
    """Width by width; the digest of the network and its images enters the hash once it is trained."""
    pending, ready = drawn(layer, net(6), rule), drawn(layer, net(6), rule, trained=True)

    assert (pending.name, pending.notes, dict(pending.moments)) == ("rainbow", (note,), {})
    assert pending.arguments["harvest"] == "pending"
    assert len(ready.arguments["digest"]) == 32
    assert ready.notes == pending.notes
    assert pending.network_init is not None
    with pytest.raises(RunError, match="stage small is not trained yet, so there is nothing to resample"):
        pending.network_init.fill(net(6), [layer], lambda *_: torch.Generator())


def test_digests_are_those_of_weights_and_images() -> None:
    """Another weight or image is another network."""
    one, graph = net(), find_sites(net(), IMAGES)
    first = TrainedNetwork("a", graph, one, IMAGES).digest
    other = TrainedNetwork("a", graph, one, IMAGES + 1).digest
    with torch.no_grad():
        one[0].weight[0, 0, 0, 0] += 1

    assert len({first, other, TrainedNetwork("b", graph, one, IMAGES).digest}) == 3


@pytest.mark.parametrize(
    ("layer", "changes", "message"),
    [
        (
            "2",
            {},
            r"2 \(depthwise_conv 6×1×3×3\): its 6 groups of channels cannot be rotated|a depthwise_conv",
        ),
        (
            "3",
            {},
            r"3 \(conv_transpose 6×6×1×1\): `rainbow` rotates the channels that filters see, and a conv_tr",
        ),
        (
            "0",
            {"kernel_size": 5},
            r"0 \(conv 6×3×5×5\): in stage small it is conv 4×3×3×3, with another kernel or",
        ),
        (
            "0",
            {"stride": 2},
            r"0 \(conv 6×3×3×3\): in stage small it is conv 4×3×3×3, with another kernel or str",
        ),
        (
            "0",
            {"inputs": 1},
            r"0 \(conv 6×1×3×3\): in stage small it is conv 4×3×3×3, which sees other images",
        ),
        (
            "0",
            {"bias": False},
            r"0 \(conv 6×3×3×3\): in stage small it is conv 4×3×3×3, with `weight` and `bias`",
        ),
        (
            "6",
            {"classes": 7},
            r"6 \(linear 7×6\): in stage small it is linear 5×4, and the last layer is copied",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    rule: Rule, layer: str, changes: dict[str, Any], message: str
) -> None:
    """Layer, both geometries and the repair."""
    with pytest.raises(UserError, match=message) as raised:
        drawn(layer, net(6, **changes), rule)
    assert "another rule above" in str(raised.value) or "only widths may differ" in str(raised.value)


def test_layers_it_does_not_know_are_refused(rule: Rule) -> None:
    """The trained network's layers are listed."""
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)))
    site = find_sites(model, IMAGES).sites[0]
    network = TrainedNetwork("stage small", find_sites(net(), IMAGES))
    with pytest.raises(
        UserError, match=r"0.0 \(conv 4×3×3×3\): stage small has no such layer, but `0`, `1`, "
    ):
        resolve_init(rule, site, Context(("weight", "bias"), {harvest_key(rule.init): network}))


def test_parameters_are_filled_together(rule: Rule) -> None:
    """A rule that omits the bias is an error with the repair."""
    with pytest.raises(UserError, match=r"the rule omits `bias`; match `param: '\.\*'`"):
        drawn("0", net(6), rule, names=("weight",))


def test_without_a_network_the_way_to_one_is_said(rule: Rule) -> None:
    """In Python, too."""
    with pytest.raises(
        UserError, match=r"`mimetic\.resample\(model, trained, images\)` takes one of your own"
    ):
        resolve_init(rule, site_of(net(), "0"), Context(("weight", "bias")))
