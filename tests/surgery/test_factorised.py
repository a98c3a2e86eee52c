"""Factorised convolutions: what they begin as, and the covariance of their filters."""

import torch
from torch import nn

from mimetic.graph.sites import find_sites
from mimetic.surgery.factorised import FactorisedConv2d, triangle

from .conftest import EXAMPLE, Small, operated

FACTORISE = {"match": "stem|body", "type": "factorised"}


def test_begins_as_a_gaussian_convolution(small: Small) -> None:
    """With factors of one it is a convolution with the frozen weight, kaiming normal."""
    operated(small, FACTORISE)
    body: nn.Module = small.body
    weight = body.weight.detach()

    assert (body.channels.numel(), body.pixels.numel()) == (36, 325)
    torch.testing.assert_close(weight, body.effective_weight().detach())
    assert abs(float(weight.std()) / (2 / 200) ** 0.5 - 1.0) < 0.1
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        nn.functional.conv2d(images, small.stem.weight, small.stem.bias, padding=1), small.stem(images)
    )


def test_factors_are_upper_triangular_with_a_positive_diagonal() -> None:
    """Packed row by row; the diagonal is exponentiated."""
    entries = torch.tensor([0.5, 2.0, 3.0, -0.5, 4.0, 0.0])

    expected = torch.tensor([[0.5, 2.0, 3.0], [0.0, -0.5, 4.0], [0.0, 0.0, 0.0]])
    expected.diagonal().copy_(expected.diagonal().exp())

    torch.testing.assert_close(expected, triangle(entries, 3))


def test_filters_have_the_covariance_of_the_factors() -> None:
    """Rows of W_eff have the covariance (U1ᵀU1) ⊗ (U2ᵀU2), measured over many filters."""
    torch.manual_seed(0)
    layer = FactorisedConv2d(nn.Conv2d(3, 200_000, 2, device="meta"))
    layer.reset_parameters()
    with torch.no_grad():
        layer.channels.normal_(std=0.3)
        layer.pixels.normal_(std=0.3)
        filters_OD = layer.effective_weight().flatten(1).double()
        channels, pixels = triangle(layer.channels, 3).double(), triangle(layer.pixels, 4).double()
    expected = torch.kron(channels.T @ channels, pixels.T @ pixels) * 2 / 12

    measured = filters_OD.T @ filters_OD / len(filters_OD)

    assert float((measured - expected).norm() / expected.norm()) < 0.02


def test_factors_learn_and_rules_see_the_filters(small: Small) -> None:
    """Gradients reach both factors and the bias; the weight is a convolution's to rules and plans."""
    (stem, _) = operated(small, FACTORISE)
    small(EXAMPLE + torch.randn(2, 3, 8, 8)).square().sum().backward()
    kinds = {site.layer: site.kind for site in find_sites(small).sites}

    assert all(
        float(p.grad.abs().sum()) > 0 for p in (small.stem.channels, small.stem.pixels, small.stem.bias)
    )
    assert (kinds["stem"], kinds["body"]) == ("conv", "conv")
    assert stem.frozen == ("stem.weight",)
