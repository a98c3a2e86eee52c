"""Empirical spatial covariances of a layer's filters."""

import numpy as np
import pytest
import torch

from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.shrinkage import intensity, shrunk
from mimetic.covariance.weights import filter_covariance
from mimetic.errors import UserError

WEIGHT = torch.randn(64, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3


def test_covariance_is_numpys() -> None:
    """The centered estimate is `numpy.cov` over filters."""
    expected = np.cov(WEIGHT.flatten(1).numpy().T)
    cov = filter_covariance(WEIGHT)
    np.testing.assert_allclose(expected, cov.dense().numpy(), atol=1e-12)
    assert (cov.patch.channels, cov.patch.kernel_size, cov.provenance.samples) == (1, (3, 3), 64)


def test_uncentered_estimates_keep_the_mean() -> None:
    """Without centering the second moment is taken about zero."""
    flat = WEIGHT.flatten(1)
    cov = filter_covariance(WEIGHT, centered=False)
    assert torch.allclose(flat.T @ flat / 64, cov.dense())


def test_every_slice_of_a_full_convolution_is_a_sample() -> None:
    """A convolution of 8 × 8 channels gives the 64 filters of the depthwise layer of the same numbers."""
    full = filter_covariance(WEIGHT.view(8, 8, 3, 3))
    assert torch.allclose(filter_covariance(WEIGHT).dense(), full.dense())


def test_few_filters_give_low_rank() -> None:
    """Five filters of 49 pixels have rank four after centering, and the factor stays as small."""
    cov = filter_covariance(WEIGHT.view(-1)[:245].view(5, 1, 7, 7))
    assert (cov.provenance.rank, cov.rank, cov.provenance.smallest_eigenvalue) == (4, 5, 0.0)


def test_a_covariance_is_recovered_from_its_draws() -> None:
    """Filters drawn from the closed form give it back, the better the more there are."""
    truth = closed_form((5, 5), 0.8)
    errors = []
    for count in (100, 10_000):
        drawn = truth.sample(count, torch.Generator().manual_seed(1)).view(count, 1, 5, 5)
        errors.append(float((filter_covariance(drawn).dense() - truth.dense()).norm() / truth.dense().norm()))
    assert errors[1] < 0.05 < errors[0]


def test_automatic_shrinkage_helps_few_filters() -> None:
    """With 30 filters of 25 pixels the shrunk estimate lies nearer to the truth, and says by how much."""
    truth = closed_form((5, 5), 0.8)
    drawn = truth.sample(30, torch.Generator().manual_seed(1)).view(30, 1, 5, 5)
    flat = drawn.flatten(1)
    alpha = intensity(flat - flat.mean(dim=0))
    raw = filter_covariance(drawn)
    found = shrunk(raw, alpha)
    errors = [float((cov.dense() - truth.dense()).norm()) for cov in (raw, found)]
    assert errors[1] < errors[0]
    assert found.provenance.notes == (f"shrunk {alpha:.3g} toward its mean variance",)


@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        (torch.zeros(8, 8), "no spatial filters"),
        (torch.zeros(8, 8, 1, 1), "no spatial filters"),
        (torch.zeros(1, 1, 3, 3), "too few"),
        (torch.full((8, 1, 3, 3), torch.nan), "NaN"),
    ],
)
def test_wrong_weights_are_refused(weight: torch.Tensor, problem: str) -> None:
    """The message names the source."""
    with pytest.raises(UserError, match=f"blocks.3.*{problem}"):
        filter_covariance(weight, source="filters of blocks.3")
