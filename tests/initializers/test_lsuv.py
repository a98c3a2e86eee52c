"""Layer-sequential unit variance: every layer's outputs have the deviation asked for, first layer first."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mimetic
from mimetic.config.errors import RecipeError
from mimetic.errors import RunError, UserError
from mimetic.initializers.lsuv import unit_variance


def network(*, norm: bool = False) -> nn.Sequential:
    """Return a small network with biases far from zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = [nn.BatchNorm2d(12)] if norm else []
        net = nn.Sequential(
            nn.Conv2d(3, 12, 3), *middle, nn.ReLU(), nn.Conv2d(12, 8, 3, groups=4), nn.ReLU(), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(8 * 16, 10),
        )  # fmt: skip
        for parameter in net.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, std=0.5)
    return net


def images(count: int = 32) -> Tensor:
    """Return images that are not normalized."""
    return 3.0 + 2.0 * torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def deviations(net: nn.Module, inputs: Tensor, names: list[str]) -> list[float]:
    """Return the deviation of the outputs of layers."""
    found: dict[str, float] = {}
    modules = dict(net.named_modules())
    for name in names:
        modules[name].register_forward_hook(
            lambda _m, _i, out, name=name: found.__setitem__(name, float(out.std(correction=0)))
        )
    net.eval()
    with torch.no_grad():
        net(inputs)
    return [found[name] for name in names]


def rule(layer: str, identity: str, **scale: Any) -> dict[str, Any]:
    """Return a rule that scales a layer by its outputs."""
    return {
        "id": identity,
        "match": {"layer": layer},
        "covariance": "identity",
        "scale": {"type": "lsuv", **scale},
    }


def test_outputs_have_the_deviation_asked_for() -> None:
    """Through biases, groups and nonlinearities, in one sweep; the second layer sees the first one scaled."""
    net = network()
    before = [p.clone() for p in net.parameters()]
    remarks = unit_variance(net, {"0": 1.0, "2": 2.0, "6": 0.7}, images())
    assert deviations(net, images(), ["0", "2", "6"]) == pytest.approx([1.0, 2.0, 0.7], rel=1e-4)
    assert list(remarks) == ["0", "2", "6"]
    assert remarks["6"].endswith("to outputs of deviation 0.7")
    for old, new in zip(before, net.parameters(), strict=True):
        ratio = new / old
        assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio))  # a factor for each weight
        assert old.ndim > 1 or torch.equal(old, new)


def test_norms_use_the_batch_and_keep_their_statistics() -> None:
    """Behind a batch norm the size of the layer before has no say, and running statistics stay."""
    net = network(norm=True).train()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    unit_variance(net, {"3": 1.0}, images())
    first = net[3].weight.clone()
    assert all(torch.equal(buffers[name], buffer) for name, buffer in net.named_buffers())
    assert all(module.training for module in net.modules())
    with torch.no_grad():
        net[0].weight.mul_(7.0)
        net[0].bias.mul_(7.0)
    unit_variance(net, {"3": 1.0}, images())
    torch.testing.assert_close(first, net[3].weight, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_scaled() -> None:
    """Outputs that do not vary, a layer no forward calls, and images of another size."""
    net = network()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
    with pytest.raises(RunError, match=r"^0: its outputs on the images do not vary"):
        unit_variance(net, {"0": 1.0}, images())
    with pytest.raises(
        RunError, match=r"^0: its biases alone make its outputs deviate by 0\.[0-9]+, so `lsuv`"
    ):
        unit_variance(network(), {"0": 0.1}, images())
    net = network()
    used = nn.Sequential(*net)
    net.add_module("idle", nn.Linear(10, 10))
    net.forward = used.forward  # type: ignore[method-assign]
    with pytest.raises(RunError, match=r"^idle: .* a forward does not call it"):
        unit_variance(net, {"idle": 1.0}, images())
    with pytest.raises(RunError, match=r"`lsuv` runs the network on \(4, 3, 2, 2\) images"):
        unit_variance(network(), {"0": 1.0}, torch.zeros(4, 3, 2, 2))


def test_recipes_scale_last_of_all() -> None:
    """Rules above and below, other gains: one sweep over the network as it will be; seeds repeat."""
    recipe = {
        "init": [
            rule("6", "last"),
            rule("0", "first", gain=2.0, images=16),
            {"id": "middle", "match": {"layer": "2"}, "init": {"type": "normal", "std": 3.0}},
        ]
    }
    net, again = network(), network()
    plan = mimetic.initialize(net, recipe, seed=4, images=images())
    mimetic.initialize(again, recipe, seed=4, images=images())
    assert deviations(net, images(16), ["0"]) == pytest.approx([2.0], rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    entry = plan.entry("0.weight")
    assert entry is not None
    assert entry.moments is None
    assert entry.notes[-1] == "then scaled on 16 training images to outputs of deviation 2, last of all"
    assert len(entry.arguments["images"]) == 32


def test_images_must_be_at_hand() -> None:
    """Without them the rule says what to do."""
    with pytest.raises(RecipeError, match="the scale `lsuv` needs training images, and none are available"):
        mimetic.initialize(network(), {"init": [rule("0", "first")]}, seed=0)
    assert issubclass(RecipeError, UserError)
