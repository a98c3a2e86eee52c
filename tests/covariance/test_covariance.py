"""Covariances in factor form: moments, sampling, validation and digests."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance, measured
from mimetic.errors import UserError


def random_covariance(rank: int, channels: int, kernel: tuple[int, ...], seed: int = 0) -> Covariance:
    """Return a covariance with a random factor."""
    patch = PatchGeometry(channels, kernel)
    stream = torch.Generator().manual_seed(seed)
    return Covariance(torch.randn(rank, patch.size, generator=stream, dtype=torch.float64), patch)


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_moments_equal_those_of_the_dense_matrix(rank: int, channels: int, side: int, seed: int) -> None:
    """Trace, spectrum and effective count from the factor are those of FᵀF, which is PSD."""
    cov = random_covariance(rank, channels, (side, side), seed)
    dense = cov.dense()
    values = torch.linalg.eigvalsh(dense).flip(0)
    trace = float(dense.trace())
    energy = trace**2 / float(dense.square().sum())
    mean = cov.patch.size * trace / max(float(dense.sum()), 1e-300)
    count = min(rank, cov.patch.size)
    assert trace == pytest.approx(cov.trace)
    assert torch.allclose(values[:count], cov.eigenvalues(), atol=1e-9 * trace)
    assert min(energy, mean) == pytest.approx(cov.independent_entries)
    assert float(values[-1]) >= -1e-12 * trace


def test_effective_count_of_independent_and_of_equal_entries() -> None:
    """Nine independent entries count nine, nine equal ones count one."""
    patch = PatchGeometry(1, (3, 3))
    assert Covariance(torch.eye(9, dtype=torch.float64), patch).independent_entries == pytest.approx(9.0)
    equal = Covariance(torch.ones(1, 9, dtype=torch.float64), patch)
    assert equal.independent_entries == pytest.approx(1.0)
    assert Covariance(torch.zeros(1, 9, dtype=torch.float64), patch).independent_entries == 0.0


def test_samples_have_the_covariance() -> None:
    """Draws of a factor of low rank have second moment FᵀF and stay in its row space."""
    cov = random_covariance(4, 2, (3, 3))
    drawn = cov.sample(100_000, torch.Generator().manual_seed(1))
    found = drawn.T @ drawn / len(drawn)
    assert float((found - cov.dense()).norm()) < 0.02 * float(cov.dense().norm())
    assert int(torch.linalg.matrix_rank(drawn[:50])) == 4


def test_samples_are_deterministic_and_contiguous() -> None:
    """The same generator state gives the same bits; the cast is the only difference of dtypes."""
    cov = random_covariance(5, 1, (3, 3))
    double = cov.sample(7, torch.Generator().manual_seed(3))
    single = cov.sample(7, torch.Generator().manual_seed(3), dtype=torch.float32)
    assert torch.equal(double.float(), single)
    assert double.is_contiguous()


def test_many_draws_are_blocked_and_scatter_alike() -> None:
    """A draw larger than one block has the trace it should, in its first and its last rows."""
    cov = random_covariance(9, 1, (3, 3))
    drawn = cov.sample(300_000, torch.Generator().manual_seed(0))
    for part in (drawn[:50_000], drawn[-50_000:]):
        energy = float(part.square().sum(dim=1).mean())
        assert cov.trace == pytest.approx(energy, rel=0.02)


def test_scaling_multiplies_the_draws() -> None:
    """A gain of 3 multiplies draws by 3 and the trace by 9, and the provenance follows."""
    cov = measured(random_covariance(5, 1, (3, 3)).factor_RD, PatchGeometry(1, (3, 3)), source="x", samples=5)
    scaled = cov.scale_by(3.0)
    drawn = scaled.sample(2, torch.Generator().manual_seed(0))
    assert torch.allclose(3.0 * cov.sample(2, torch.Generator().manual_seed(0)), drawn)
    assert 9.0 * cov.trace == pytest.approx(scaled.trace)
    largest = scaled.provenance.largest_eigenvalue
    assert largest == pytest.approx(float(scaled.eigenvalues()[0]))
    assert cov.scale_by(1.0) is cov


def test_measured_covariances_tell_rank_spectrum_and_digest() -> None:
    """The provenance of an estimate holds its rank, extreme eigenvalues and digest."""
    factor = random_covariance(4, 2, (3, 3)).factor_RD
    cov = measured(torch.cat((factor, factor)), PatchGeometry(2, (3, 3)), source="nfm", samples=8)
    assert (cov.provenance.rank, cov.provenance.smallest_eigenvalue, cov.provenance.samples) == (4, 0.0, 8)
    assert cov.provenance.digest == cov.digest()


def test_a_digest_depends_on_every_bit_and_on_the_geometry() -> None:
    """One flipped last bit, or another reading of the same numbers, gives another digest."""
    cov = random_covariance(4, 1, (4,))
    nudged = cov.factor_RD.clone()
    nudged[0, 0] = math.nextafter(float(nudged[0, 0]), math.inf)
    square = Covariance(cov.factor_RD, PatchGeometry(1, (2, 2)))
    other = Covariance(nudged, cov.patch)
    assert random_covariance(4, 1, (4,)).digest() == cov.digest()
    assert len({cov.digest(), square.digest(), other.digest()}) == 3


def test_notes_add_up_in_order() -> None:
    """What is done to a covariance is told in order, on a copy."""
    cov = random_covariance(2, 1, (3,))
    noted = cov.noted("resized 5→3").noted("depth 0.43")
    assert noted.provenance.notes == ("resized 5→3", "depth 0.43")
    assert cov.provenance.notes == ()


@pytest.mark.parametrize(
    ("factor", "problem"),
    [
        (torch.zeros(3, 8, dtype=torch.float64), "needs"),
        (torch.zeros(9, dtype=torch.float64), "needs"),
        (torch.zeros(0, 9, dtype=torch.float64), "needs"),
        (torch.zeros(3, 9), "float64"),
        (torch.full((3, 9), torch.nan, dtype=torch.float64), "NaN"),
    ],
)
def test_wrong_factors_are_refused(factor: torch.Tensor, problem: str) -> None:
    """A factor of another shape, dtype or with NaN is an error that names the source."""
    with pytest.raises(UserError, match=f"(?s)features.3.*{problem}"):
        Covariance(factor, PatchGeometry(1, (3, 3)), Provenance("nfm of features.3"))


def test_large_dense_matrices_are_refused() -> None:
    """Nobody forms a 4608×4608 matrix by accident."""
    cov = random_covariance(1, 512, (3, 3))
    with pytest.raises(UserError, match="4608"):
        cov.dense()
