"""Shrinkage: estimated intensities, targets, and the removal of noise eigenvalues."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage

from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.shrinkage import intensity, shrunk, spiked
from mimetic.errors import UserError


@given(st.integers(3, 40), st.integers(2, 12), st.integers(0, 10**6))
def test_intensity_is_ledoit_and_wolfs(count: int, size: int, seed: int) -> None:
    """The estimate toward the isotropic target is scikit-learn's, for few and for many samples."""
    stream = torch.Generator().manual_seed(seed)
    samples = torch.randn(count, size, generator=stream, dtype=torch.float64) @ torch.diag(
        torch.linspace(0.5, 2.0, size, dtype=torch.float64)
    )
    samples = samples - samples.mean(dim=0)
    expected = ledoit_wolf_shrinkage(samples.numpy(), assume_centered=True)
    assert expected == pytest.approx(intensity(samples), abs=1e-9)


def test_more_samples_need_less_shrinkage() -> None:
    """The intensity falls with the number of samples."""
    stream = torch.Generator().manual_seed(0)
    mixing = torch.randn(9, 9, generator=stream, dtype=torch.float64)
    found = [
        intensity(torch.randn(count, 9, generator=stream, dtype=torch.float64) @ mixing)
        for count in (10, 100, 10_000)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.01


@given(st.integers(1, 14), st.floats(0, 1))
def test_shrinkage_interpolates_and_keeps_the_trace(make: SimpleNamespace, rank: int, alpha: float) -> None:
    """(1 − α)·Σ + α·T is PSD with Σ's trace, and T at α = 1."""
    cov = make.random_covariance(rank, 1, (3, 3))
    dense = cov.dense()
    goal = torch.eye(9, dtype=torch.float64) * cov.trace / 9
    found = shrunk(cov, alpha)
    assert torch.allclose((1 - alpha) * dense + alpha * goal, found.dense(), atol=1e-10 * cov.trace)
    assert cov.trace == pytest.approx(found.trace)
    assert float(torch.linalg.eigvalsh(found.dense())[0]) >= -1e-12 * cov.trace


def test_large_patches_are_refused() -> None:
    """Nothing of full rank is formed over thousands of coordinates."""
    with pytest.raises(UserError, match="4608"):
        shrunk(Covariance(torch.ones(1, 4608, dtype=torch.float64), PatchGeometry(512, (3, 3))), 0.1)


def test_spiked_spot_values() -> None:
    """Eigenvalues of signal and noise at two aspect ratios are the reference's."""
    values = torch.tensor([9.0, 5.0, 3.0, 2.0, 0.5], dtype=torch.float64)
    quarter = [7.717606537235, 3.682104036850, 1.593070330817, 0.0, 0.0]
    assert quarter == pytest.approx(spiked(values, 0.25).tolist(), abs=1e-9)
    assert pytest.approx(spiked(values, 1.0).tolist(), abs=1e-9) == [6.854101966250, 2.618033988750, 0, 0, 0]


def test_spiked_removes_pure_noise() -> None:
    """The spectrum of white noise shrinks to nearly nothing."""
    samples = torch.randn(4000, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.eigvalsh(samples.T @ samples / 4000)
    assert float(spiked(values, 0.25).sum()) < 0.01 * float(values.sum())
