"""What layers see: inputs, the order of calls, and statistics for norms."""

import pytest
import torch
from torch import nn

from mimetic.covariance.activations import LayerCall, alignment, inputs_at, norms, refresh_statistics, steps
from mimetic.errors import UserError

IMAGES = torch.randn(150, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def small(*, inplace: bool = False) -> nn.Sequential:
    """Return a network whose first norm is behind its convolution, and the second behind a ReLU."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(4, 5, 1),
        nn.ReLU(inplace=inplace),
        nn.BatchNorm2d(5, affine=False),
        nn.Flatten(),
        nn.Linear(20, 7),
    )


@pytest.mark.parametrize("inplace", [False, True])
def test_steps_know_what_stands_right_behind_what(*, inplace: bool) -> None:
    """A norm behind an activation is not behind the layer, even where the activation works in place."""
    found = steps(small(inplace=inplace), ["0", "1", "3", "5", "7"], IMAGES[:2], origin="net")

    assert found == (LayerCall("0"), LayerCall("1", "0"), LayerCall("3"), LayerCall("5"), LayerCall("7"))
    assert norms(small()) == ("1", "5")


def test_inputs_come_by_channel() -> None:
    """Images × positions are samples; a flattened map gives its channels back."""
    model = small().eval()
    whole = torch.cat(list(inputs_at(model, "3", IMAGES, origin="net")), dim=1)
    flat = torch.cat(list(inputs_at(model, "7", IMAGES, positions=4, origin="net")), dim=1)
    with torch.no_grad():
        expected = model[:3](IMAGES).double().transpose(0, 1).flatten(1)
        last = model[:6](IMAGES).double().transpose(0, 1).flatten(1)

    assert torch.allclose(expected, whole, atol=1e-6)
    assert torch.allclose(last, flat, atol=1e-6)
    assert model.training is False


def test_statistics_are_those_of_the_inputs() -> None:
    """Mean and unbiased variance over images and positions, in place and in eval mode."""
    model = small()
    refresh_statistics(model, "1", IMAGES, origin="net")
    with torch.no_grad():
        seen = model[0](IMAGES).transpose(0, 1).flatten(1)

    assert torch.allclose(seen.mean(dim=1), model[1].running_mean, atol=1e-5)
    assert torch.allclose(seen.var(dim=1), model[1].running_var, rtol=1e-4)
    assert model.training is True


def test_a_network_is_aligned_with_itself() -> None:
    """The rotation of a network to itself is the identity, and meets everything."""
    model = small()
    found = alignment(model, model, "3", IMAGES, origin="net")

    assert torch.allclose(torch.eye(4, dtype=torch.float64), found.rotation_RN, atol=1e-6)
    assert found.explained == pytest.approx(1.0, abs=1e-9)


def test_a_layer_that_is_never_called_is_named() -> None:
    """So are images that do not fit."""
    model = small()
    model.add_module("aside", nn.Linear(3, 3))
    with pytest.raises(UserError, match="net: the network does not take images of 5×6×6"):
        list(inputs_at(model, "3", torch.zeros(2, 5, 6, 6), origin="net"))
    model.forward = lambda x: nn.Sequential.forward(model[:3], x)
    with pytest.raises(UserError, match="net: the forward never calls `aside`"):
        list(inputs_at(model, "aside", IMAGES[:2], origin="net"))


def test_features_that_are_not_finite_are_refused() -> None:
    """A trained network that diverged is said, with the layer."""
    broken = small()
    nn.init.constant_(broken[0].weight, torch.nan)
    with pytest.raises(UserError, match="the features at the input of `3` are not finite"):
        alignment(broken, small(), "3", IMAGES[:2], origin="net")
    with pytest.raises(UserError, match="the inputs of the norm layer `1` are not finite"):
        refresh_statistics(broken, "1", IMAGES[:2], origin="net")
