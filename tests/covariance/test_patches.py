"""Patch covariances of data, and the whitening first layer."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from mimetic.covariance.patches import patch_covariance, whitening_filters
from mimetic.errors import UserError

DIGITS = torch.tensor(load_digits().images[:200] / 16.0).view(-1, 1, 8, 8)
COLOR = torch.randn(8, 3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("centered", [False, True])
def test_moment_of_all_patches(centered: bool) -> None:
    """The covariance is that of the unfolded patches, in any batches."""
    patches = nn.functional.unfold(COLOR, (3, 2), stride=2, padding=1).transpose(1, 2).reshape(-1, 18)
    values = patches - patches.mean(dim=0) if centered else patches
    cov = patch_covariance(COLOR.split(3), (3, 2), stride=2, padding=1, centered=centered)
    assert torch.allclose(values.T @ values / len(values), cov.dense(), atol=1e-12)
    assert (cov.patch.channels, cov.patch.kernel_size) == (3, (3, 2))
    assert cov.provenance.samples == len(patches)


def test_order_of_coordinates_is_that_of_a_convolution() -> None:
    """Filters over the coordinates answer patches as a convolution does."""
    cov = patch_covariance([COLOR], (2, 2))
    weight = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    energy = float(nn.functional.conv2d(COLOR, weight).square().mean())
    assert energy == pytest.approx(float(weight.view(1, -1) @ cov.dense() @ weight.view(-1, 1)))


def test_whitening_makes_answers_uncorrelated() -> None:
    """On the digits' patches the filters' answers have variance λ/(λ + ε) and no correlation."""
    cov = patch_covariance([DIGITS], (2, 2))
    filters = whitening_filters(cov, epsilon=1e-3, negatives=False)
    answers = nn.functional.conv2d(DIGITS, filters).transpose(0, 1).flatten(1)
    values = cov.eigenvalues()
    expected = torch.diag(values / (values + 1e-3))
    assert torch.allclose(expected, answers @ answers.T / answers.shape[1], atol=1e-9)


def test_negatives_follow_and_signs_are_fixed() -> None:
    """Twice as many filters, the second half the negatives; the largest entry of the first is positive."""
    filters = whitening_filters(patch_covariance([DIGITS], (2, 2)))
    assert filters.shape == (8, 1, 2, 2)
    assert torch.equal(filters[:4], -filters[4:])
    assert bool((filters[:4].flatten(1).max(dim=1).values > filters[4:].flatten(1).max(dim=1).values).all())


def test_whitening_of_low_rank() -> None:
    """Directions without variance get the largest finite filters, one per coordinate."""
    cov = patch_covariance([torch.ones(1, 1, 4, 4, dtype=torch.float64)], (2, 2))
    filters = whitening_filters(cov, negatives=False)
    norms = filters.flatten(1).norm(dim=1)
    assert norms.tolist() == pytest.approx([4.0005**-0.5, *[(5e-4) ** -0.5] * 3], rel=1e-6)


def test_wrong_data_is_refused() -> None:
    """No images, images below the kernel and NaN are errors."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V042"):
        patch_covariance([], (3, 3))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V044"):
        patch_covariance([COLOR], (9, 9))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V043"):
        patch_covariance([torch.full((1, 1, 4, 4), torch.nan)], (3, 3))
