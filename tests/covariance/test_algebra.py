"""Mixtures, powers, likeness and distance against dense matrices and the reference's spot values."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.covariance import algebra
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.linalg import symmetric_root
from mimetic.covariance.weights import nfm

RANKS = st.integers(1, 14)
SEEDS = st.integers(0, 10**6)
POWERS = st.sampled_from([0.25, 0.5, 1.0, 2.0])


def dense_power(matrix: torch.Tensor, power: float) -> torch.Tensor:
    """Return the power of a PSD matrix on its range."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > 1e-12 * values[-1]
    return (vectors * torch.where(kept, values.clamp(min=1e-300) ** power, 0.0)) @ vectors.T


@given(RANKS, SEEDS, POWERS)
def test_powers_are_those_of_the_dense_matrix(
    make: SimpleNamespace, rank: int, seed: int, power: float
) -> None:
    """Σ^p from the factor is V·Λ^p·Vᵀ, below and above full rank, and the powers are noted."""
    cov = make.random_covariance(rank, 1, (3, 3), seed)
    found = algebra.powered(cov, power)
    expected = dense_power(cov.dense(), power)
    assert torch.allclose(expected, found.dense(), atol=1e-8 * float(expected.norm()))
    assert found.provenance.notes == (f"power {power:g}",)
    assert found.rank <= 9


def test_the_inverse_lives_on_the_range(make: SimpleNamespace) -> None:
    """A negative power of a covariance of low rank leaves its null space alone."""
    cov = make.random_covariance(3, 1, (3, 3))
    inverse = algebra.powered(cov, -1.0).dense()
    assert torch.allclose(torch.linalg.pinv(cov.dense(), hermitian=True), inverse, atol=1e-9)


def test_powers_carry_no_arbitrary_signs(make: SimpleNamespace) -> None:
    """The factor of Σ¹ is the factor itself, not a rotation of it."""
    cov = make.random_covariance(4, 1, (3, 3))
    assert torch.allclose(cov.factor_RD, algebra.powered(cov, 1.0).factor_RD, atol=1e-12)


@given(RANKS, RANKS, SEEDS, st.floats(0, 1))
def test_mixtures_are_convex_combinations(
    make: SimpleNamespace, left: int, right: int, seed: int, weight: float
) -> None:
    """A mixture is the weighted sum of the matrices, PSD, with the weighted sum of traces."""
    a, b = make.random_covariance(left, 1, (3, 3), seed), make.random_covariance(right, 1, (3, 3), seed + 1)
    found = algebra.mixed((a, b), (1.0 - weight, weight))
    expected = (1.0 - weight) * a.dense() + weight * b.dense()
    assert torch.allclose(expected, found.dense(), atol=1e-10 * float(expected.norm()))
    assert (1.0 - weight) * a.trace + weight * b.trace == pytest.approx(found.trace)
    assert float(torch.linalg.eigvalsh(found.dense())[0]) >= -1e-10 * found.trace


def test_mixtures_tell_their_parts(make: SimpleNamespace) -> None:
    """The provenance names what was mixed and by which weights; another weight is another digest."""
    a, b = nfm(make.lcg((4, 2, 3, 3), 1), source="one"), nfm(make.lcg((4, 2, 3, 3), 2), source="two")
    found = algebra.mixed((a, b), (0.25, 0.75))
    assert (found.provenance.source, found.provenance.samples) == ("one and two", 8)
    assert found.provenance.notes == ("mixed 0.25·one + 0.75·two",)
    assert found.provenance.digest != algebra.mixed((a, b), (0.5, 0.5)).provenance.digest


@given(RANKS, RANKS, SEEDS)
def test_likeness_is_that_of_the_dense_matrices(
    make: SimpleNamespace, left: int, right: int, seed: int
) -> None:
    """Pearson and cosine from the factors are those over all d² entries, and symmetric."""
    a, b = make.random_covariance(left, 1, (3, 3), seed), make.random_covariance(right, 1, (3, 3), seed + 1)
    both = torch.stack((a.dense().flatten(), b.dense().flatten()))
    cosine = float(torch.nn.functional.cosine_similarity(both[0], both[1], dim=0))
    assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(algebra.correlation(a, b), abs=1e-9)
    assert cosine == pytest.approx(algebra.cosine(a, b), abs=1e-12)
    assert algebra.correlation(a, b) == pytest.approx(algebra.correlation(b, a))
    assert algebra.correlation(a, a.scale_by(3.0)) == pytest.approx(1.0)


def test_constant_matrices_correlate_with_nothing() -> None:
    """A zero matrix has cosine and correlation zero, not NaN."""
    patch = PatchGeometry(1, (3,))
    zero = Covariance(torch.zeros(1, 3, dtype=torch.float64), patch)
    unit = Covariance(torch.eye(3, dtype=torch.float64), patch)
    assert (algebra.cosine(zero, unit), algebra.correlation(zero, unit)) == (0.0, 0.0)
    assert algebra.bures_wasserstein(zero, unit) == pytest.approx((3.0, 0.0))


def test_truncation_keeps_the_leading_eigenvectors(make: SimpleNamespace) -> None:
    """Rank two leaves the two largest eigenvalues, below and above full rank."""
    for rank in (4, 12):
        cov = make.random_covariance(rank, 1, (3, 3))
        found = algebra.truncated(cov, 2)
        assert torch.allclose(cov.eigenvalues()[:2], found.eigenvalues()[:2])
        assert found.provenance.rank == 2


def test_rainbow_spot_values(make: SimpleNamespace) -> None:
    """C = WᵀW/6, its root and G·C^½ have the values of the official rainbow code."""
    cov = nfm(make.lcg((6, 18), 61), normalize="mean")
    root, _ = symmetric_root(cov.dense())
    drawn = make.lcg((5, 18), 62, math.sqrt(12)) @ root
    half = algebra.powered(cov, 0.5)
    assert cov.trace == pytest.approx(1.448088075617, abs=1e-12)
    assert float(cov.dense()[0, 1]) == pytest.approx(-0.004624078160, abs=1e-12)
    assert half.trace == pytest.approx(2.832122241215, abs=1e-9)
    assert float(half.dense()[0, 1]) == pytest.approx(-0.014100386168, abs=1e-9)
    assert float(drawn.sum()) == pytest.approx(-1.818525020729, abs=1e-6)
    assert float(drawn.norm()) == pytest.approx(2.327794147224, abs=1e-9)
    assert float(drawn[4, 17]) == pytest.approx(0.109315221829, abs=1e-6)


def test_bures_wasserstein_spot_values(make: SimpleNamespace) -> None:
    """Distance and cosine of two small covariances are the reference's."""
    left, right = (nfm(make.lcg((n, 5), seed), normalize="mean") for n, seed in ((7, 71), (9, 72)))
    assert algebra.bures_wasserstein(left, right) == pytest.approx((0.119599011626, 0.860264785545), abs=1e-9)


def test_effective_rank_of_shrunk_eigenvalues() -> None:
    """The reference's effective rank."""
    values = torch.tensor([7.717606537235, 3.682104036850, 1.593070330817, 0.0, 0.0], dtype=torch.float64)
    assert algebra.effective_rank(values) == pytest.approx(1.528620065924, abs=1e-9)
