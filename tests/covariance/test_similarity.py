"""Likeness of two networks: a rotated copy is the same network, a random one is not."""

import pytest
import torch
from torch import nn

from mimetic.covariance.similarity import similarities
from mimetic.errors import UserError

IMAGES = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(width: int = 8, seed: int = 0) -> nn.Sequential:
    """Return a network with a map that is flattened before its last layer."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width, 5),
    )


def test_a_copy_in_another_order_is_the_same_network() -> None:
    """Permuted channels are aligned; without images only what needs no rotation is compared."""
    one, other = net(), net()
    order = torch.randperm(8)
    other[0].weight.data = one[0].weight.data[order] * 3.0
    other[2].weight.data = one[2].weight.data[:, order]
    found = similarities(one, other, IMAGES)
    plain = similarities(one, other, None)

    assert [row.layer for row in found] == ["0", "2", "5"]
    assert [row.filters for row in found] == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)
    assert [row.features for row in found[1:]] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found[0].features is None
    assert all(row.chance < 0.99 for row in found)
    assert [row.kernels for row in found] == [pytest.approx(1.0), pytest.approx(1.0), None]
    assert [row.filters is None for row in plain] == [False, True, True]
    assert [row.kernels for row in plain] == [row.kernels for row in found]
    assert (found[1].one, found[1].other) == ("conv 16×8×3×3", "conv 16×8×3×3")


def test_other_networks_are_less_alike_and_widths_may_differ() -> None:
    """Cosines lie between 0 and 1, and below those of a copy."""
    rows = similarities(net(), net(12, seed=1), IMAGES)

    assert [row.other for row in rows] == ["conv 12×3×3×3", "conv 24×12×3×3", "linear 5×24"]
    assert all(0.0 < row.filters < 0.99 for row in rows)
    assert all(0.0 < row.features < 0.99 for row in rows[1:])
    assert similarities(net(), net(12, seed=1), IMAGES) == rows


def test_depthwise_layers_are_compared_by_their_kernels() -> None:
    """Their channels cannot be rotated into one another."""
    one = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6))
    _, row = similarities(one, one, IMAGES)

    assert (row.features, row.filters, row.chance) == (None, None, None)
    assert row.kernels == pytest.approx(1.0)


def test_networks_without_a_common_layer_are_refused() -> None:
    """Both lists of layers are shown."""
    message = r"the first network \(`0`, `2`, `5`\) and the second \(`a`\) share no layer"
    with pytest.raises(UserError, match=message):
        similarities(net(), nn.ModuleDict({"a": nn.Linear(3, 3)}), None)
