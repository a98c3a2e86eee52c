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


def test_intensity_toward_the_diagonal_is_the_variance_over_the_correlations() -> None:
    """Toward the diagonal only the entries beside it count, entry by entry."""
    samples = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples[:, 1] += samples[:, 0]
    outer = samples[:, :, None] * samples[:, None, :]
    mean = outer.mean(dim=0)
    noise = (outer - mean).square().sum(dim=0) / 30**2
    off = ~torch.eye(5, dtype=torch.bool)
    expected = float(noise[off].sum() / mean.square()[off].sum())
    assert expected == pytest.approx(intensity(samples, target="diagonal"))


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


@given(st.integers(1, 14), st.floats(0, 1), st.sampled_from(["identity", "diagonal"]))
def test_shrinkage_interpolates_and_keeps_the_trace(
    make: SimpleNamespace, rank: int, alpha: float, target: str
) -> None:
    """(1 − α)·Σ + α·T is PSD with Σ's trace, and T at α = 1."""
    cov = make.random_covariance(rank, 1, (3, 3))
    dense = cov.dense()
    isotropic = torch.eye(9, dtype=torch.float64) * cov.trace / 9
    goal = isotropic if target == "identity" else torch.diag(dense.diagonal())
    found = shrunk(cov, alpha, target=target)
    assert torch.allclose((1 - alpha) * dense + alpha * goal, found.dense(), atol=1e-10 * cov.trace)
    assert cov.trace == pytest.approx(found.trace)
    assert float(torch.linalg.eigvalsh(found.dense())[0]) >= -1e-12 * cov.trace


def test_wrong_intensities_and_large_patches_are_refused(make: SimpleNamespace) -> None:
    """α lies in [0, 1], and nothing of full rank is formed over thousands of coordinates."""
    with pytest.raises(UserError, match=r"not 1\.5"):
        shrunk(make.random_covariance(2, 1, (3, 3)), 1.5)
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
