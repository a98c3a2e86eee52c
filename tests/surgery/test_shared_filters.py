"""Shared filters: one tensor, each layer's leading block at the scale of its own default."""

import torch
from torch import nn
from torch.nn import functional

from mimetic.graph.sites import find_sites
from mimetic.surgery.shared_filters import SharedFilters

from .conftest import operated

SHARE = {"match": {"kind": "conv"}, "type": "shared_filters"}


def network() -> nn.Sequential:
    """Return two convolutions of different widths."""
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(20, 10, 3, bias=False)
    )


def test_one_tensor_serves_all_layers() -> None:
    """It is as large as the largest layer in each direction, and counted once, under its first name."""
    model = network()
    first, second = operated(model, SHARE)

    assert [name for name, _ in model.named_parameters()] == ["0.bank", "0.bias"]
    assert tuple(model[0].bank.shape) == (20, 20, 3, 3)
    assert model[0].bank is model[2].bank
    assert (
        first.becomes,
        second.becomes,
    ) == ("20 of 20 shared frozen filters 3×3", "10 of 20 shared frozen filters 3×3")
    (bank,) = [p for s in find_sites(model).sites for p in s.parameters if p.local == "bank"]
    assert (bank.name, bank.aliases) == ("0.bank", ("2.bank",))


def test_layer_takes_its_leading_block_at_its_own_scale() -> None:
    """Layer l convolves with W[:C_out, :C_in] / sqrt(C_in·k²), whose deviation is that of the default."""
    model = network()
    stride, padding = model[0].stride, model[0].padding
    operated(model, SHARE)
    images = torch.randn(2, 3, 8, 8)
    weight = model[0].bank[:20, :3] / 27**0.5

    expected = functional.conv2d(images, weight, model[0].bias, stride, padding)

    torch.testing.assert_close(expected, model[0](images))
    assert isinstance(model[0], SharedFilters)
    assert abs(float(model[0].bank.detach().std()) * 3**0.5 - 1.0) < 0.05
    assert float(model[0].bank.detach().abs().max()) <= 1.0


def test_bank_depends_on_seed_and_first_name() -> None:
    """The same seed gives the same bank; the second layer does not draw it again."""
    one, same, other = network(), network(), network()
    for model, seed in ((one, 0), (same, 0), (other, 1)):
        operated(model, SHARE, seed=seed)

    assert torch.equal(one[0].bank, same[2].bank)
    assert not torch.equal(one[0].bank, other[0].bank)
