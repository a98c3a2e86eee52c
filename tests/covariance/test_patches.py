"""Patch covariances of data, and their inverse."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from mimetic.covariance.patches import patch_covariance, whitened
from mimetic.errors import UserError

DIGITS = torch.tensor(load_digits().images[:200] / 16.0).view(-1, 1, 8, 8)
COLOR = torch.randn(8, 3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_moment_of_all_patches() -> None:
    """The covariance is that of the unfolded patches, in any batches."""
    patches = nn.functional.unfold(COLOR, (3, 2), stride=2, padding=1).transpose(1, 2).reshape(-1, 18)
    cov = patch_covariance(COLOR.split(3), (3, 2), stride=2, padding=1)
    assert torch.allclose(patches.T @ patches / len(patches), cov.dense(), atol=1e-12)
    assert (cov.patch.channels, cov.patch.kernel_size) == (3, (3, 2))
    assert cov.provenance.samples == len(patches)


def test_order_of_coordinates_is_that_of_a_convolution() -> None:
    """Filters over the coordinates answer patches as a convolution does."""
    cov = patch_covariance([COLOR], (2, 2))
    weight = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    energy = float(nn.functional.conv2d(COLOR, weight).square().mean())
    assert energy == pytest.approx(float(weight.view(1, -1) @ cov.dense() @ weight.view(-1, 1)))


def test_whitening_inverts_the_moment() -> None:
    """Filters from the inverse answer patches of the digits with unit variance, and stay finite at rank 1."""
    cov = patch_covariance([DIGITS], (2, 2))
    white = whitened(cov, 1e-9)
    assert torch.allclose(torch.eye(4, dtype=torch.float64), cov.dense() @ white.dense(), atol=1e-6)
    flat = patch_covariance([torch.ones(1, 1, 4, 4, dtype=torch.float64)], (2, 2))
    values = whitened(flat, 5e-4).eigenvalues().tolist()
    assert values == pytest.approx([*[1 / 5e-4] * 3, 1 / 4.0005], rel=1e-6)


def test_wrong_data_is_refused() -> None:
    """No images, images below the kernel and NaN are errors."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V042"):
        patch_covariance([], (3, 3))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V044"):
        patch_covariance([COLOR], (9, 9))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V043"):
        patch_covariance([torch.full((1, 1, 4, 4), torch.nan)], (3, 3))
