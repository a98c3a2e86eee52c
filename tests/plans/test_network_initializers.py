"""Joint draws: on a copy, after all others, and all or nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mimetic.config.address import ConfigPath
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_buffers
from mimetic.graph.sites import find_sites
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

IMAGES = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RAINBOW = {
    "id": "all",
    "match": {"layer": ".*", "param": ".*"},
    "init": {"type": "rainbow", "from": {"stage": "small"}},
}
HEAD = {"id": "head", "match": {"layer": "5", "param": ".*"}, "init": "default"}


def net(width: int, seed: int) -> nn.Sequential:
    """Return a small network."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, width, 3, stride=2)
    return nn.Sequential(
        conv, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)
    )


def plan(model: nn.Module, *rules: dict[str, object], trained: nn.Module | None, seed: int = 0) -> Plan:
    """Return the plan of rules with a network at hand."""
    arm = load(
        {
            "recipe": 1,
            "name": "t",
            "model": "vgg11",
            "data": "digits",
            "arms": {"a": {"init": list(rules)}},
            "stages": {"small": {}},
        }
    ).arms["a"]
    old = net(4, 0)
    graph = find_sites(old, IMAGES[:2])
    network = (
        TrainedNetwork("small", graph) if trained is None else TrainedNetwork("small", graph, trained, IMAGES)
    )
    spec = next(rule.init for rule in arm.init if rule.id == "all")
    assert spec is not None
    return resolve(
        arm,
        find_sites(model, IMAGES[:2]),
        seed=seed,
        at=ConfigPath(name="a"),
        harvests={harvest_key(spec): network},
    )


def state(model: nn.Module) -> dict[str, list[float]]:
    """Return every tensor of a network as plain values."""
    return {name: tensor.flatten().tolist() for name, tensor in model.state_dict().items()}


def test_parameters_and_statistics_are_written() -> None:
    """Another model of the plan gets the same bits, whatever it held; the trained network stays as it was."""
    trained = net(4, 0)
    before = state(trained)
    one, other = net(6, 1), net(6, 2)
    plan(one, RAINBOW, trained=trained).apply(one)
    written = plan(other, RAINBOW, trained=trained).apply(other)

    assert state(one) == state(other)
    assert state(trained) == before
    assert one[1].running_mean.abs().sum() > 0
    assert [m.remark is not None for m in written] == [True, False, False, False, True, False]


def test_other_rules_come_first() -> None:
    """What another rule draws is not touched, and the order of rules does not matter."""
    trained = net(4, 0)
    one, other, alone = net(6, 1), net(6, 1), net(6, 1)
    plan(one, HEAD, RAINBOW, trained=trained).apply(one)
    convs = {**RAINBOW, "match": {"layer": "[01]", "param": ".*"}}
    plan(other, convs, HEAD, trained=trained).apply(other)
    plan(alone, HEAD, {**RAINBOW, "match": {"layer": "[01]", "param": ".*"}}, trained=trained).apply(alone)

    assert state(one) == state(other) == state(alone)


def test_hashes_hold_arguments_and_the_network() -> None:
    """Another network, other arguments and another seed are other plans; what the model held is not."""
    model, trained = net(6, 1), net(4, 0)
    aligned = {**RAINBOW, "init": {**RAINBOW["init"], "align": False}}
    plans = [
        plan(model, RAINBOW, trained=trained),
        plan(model, RAINBOW, trained=net(4, 5)),
        plan(model, RAINBOW, trained=None),
        plan(model, aligned, trained=trained),
        plan(model, RAINBOW, trained=trained, seed=1),
    ]

    assert len({made.hash for made in plans}) == 5
    assert plans[0].hash == plan(net(6, 9), RAINBOW, trained=trained).hash


def test_what_fails_leaves_the_network_as_it_was() -> None:
    """Values that are not finite, and a network that is not trained yet."""
    model, broken = net(6, 1), net(4, 0)
    nn.init.constant_(broken[0].weight, torch.nan)
    before = state(model)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V143"):
        plan(model, RAINBOW, trained=broken).apply(model)
    with pytest.raises(RunError, match="not trained yet"):
        plan(model, RAINBOW, trained=None).apply(model)

    assert state(model) == before


def test_the_copy_is_float32_on_the_cpu() -> None:
    """A network of another dtype is filled with the same values, rounded."""
    trained, whole = net(4, 0), net(6, 1)
    half = net(6, 1).bfloat16()
    made = plan(whole, RAINBOW, trained=trained)
    made.apply(whole)
    entries = tuple(replace(entry, dtype="bfloat16") for entry in made.entries)
    replace(made, entries=entries).apply(half)

    assert torch.equal(whole[0].weight.bfloat16(), half[0].weight)


def test_the_buffers_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many norm layers changed, the model is walked once for its buffers, and its copy once."""
    walks = []

    def counting(model: nn.Module) -> dict[str, torch.Tensor]:
        walks.append(model)
        return canonical_buffers(model)

    for module in ("apply", "write"):
        monkeypatch.setattr(f"mimetic.plans.{module}.canonical_buffers", counting)
    one = net(6, 1)
    plan(one, RAINBOW, trained=net(4, 0)).apply(one)

    assert len(walks) == 2
