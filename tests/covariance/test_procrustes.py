"""Rotations between features: the reference's values, and rotations that are found again."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.covariance.linalg import symmetric_root
from mimetic.covariance.procrustes import aligned, polar, rotated
from mimetic.covariance.weights import nfm

SIDES = st.integers(1, 6)
SEEDS = st.integers(0, 10**6)


def features(count: int, channels: int, seed: int) -> torch.Tensor:
    """Return features of full rank, unequal in scale."""
    stream = torch.Generator().manual_seed(seed)
    scales = torch.arange(1.0, channels + 1, dtype=torch.float64)
    return torch.randn(count, channels, generator=stream, dtype=torch.float64) * scales


def rotation(side: int, seed: int) -> torch.Tensor:
    """Return a random orthogonal matrix."""
    stream = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(side, side, generator=stream, dtype=torch.float64))[0]


def test_polar_factor_spot_values(make: SimpleNamespace) -> None:
    """The alignment of methods-features.md §7.6, from another width."""
    one = make.lcg((40, 3), 63, 2.0)
    other = one @ make.lcg((3, 4), 64, 2.0) + 0.1 * make.lcg((40, 4), 65, 2.0)
    cross = one.T @ other / 40
    found, nuclear = polar(cross)

    assert cross[0, 0].item() == pytest.approx(0.266313355116, abs=1e-10)
    assert nuclear == pytest.approx(1.183284028745, abs=1e-10)
    assert found.shape == (3, 4)
    assert found.sum().item() == pytest.approx(2.450285079385, abs=1e-9)
    assert [found[0, 0].item(), found[2, 3].item()] == pytest.approx(
        [0.617660071423, 0.905917763723], abs=1e-9
    )


def test_rotated_filters_spot_values(make: SimpleNamespace) -> None:
    """Contracting the channel axis of filters, §7.6."""
    one = make.lcg((40, 3), 63, 2.0)
    other = one @ make.lcg((3, 4), 64, 2.0) + 0.1 * make.lcg((40, 4), 65, 2.0)
    weight = rotated(make.lcg((2, 3, 3, 3), 66), polar(one.T @ other / 40)[0])

    assert weight.shape == (2, 4, 3, 3)
    assert weight.sum().item() == pytest.approx(0.931611872435, abs=1e-9)
    assert weight.norm().item() == pytest.approx(1.931106867881, abs=1e-9)
    assert weight[1, 3, 2, 2].item() == pytest.approx(0.299867129744, abs=1e-9)


def test_drawn_filters_spot_values(make: SimpleNamespace) -> None:
    """Covariance, its root and a draw of §7.6."""
    cov = nfm(make.lcg((6, 18), 61), normalize="mean")
    dense = cov.dense()
    root, _ = symmetric_root(dense)
    drawn = make.lcg((5, 18), 62, math.sqrt(12)) @ root

    assert [cov.trace, dense[0, 1].item()] == pytest.approx([1.448088075617, -0.004624078160], abs=1e-10)
    assert [root.trace().item(), root[0, 1].item()] == pytest.approx(
        [2.832122241215, -0.014100386168], abs=1e-6
    )
    assert [drawn.sum().item(), drawn.norm().item()] == pytest.approx(
        [-1.818525020729, 2.327794147224], abs=1e-6
    )
    assert [drawn[0, 0].item(), drawn[4, 17].item()] == pytest.approx(
        [-0.068139545850, 0.109315221829], abs=1e-6
    )


@given(SIDES, SEEDS)
def test_a_rotation_is_found_again(side: int, seed: int) -> None:
    """Features and the same features rotated: the rotation back, and all of the energy."""
    one, turn = features(60, side, seed), rotation(side, seed + 1)
    other = one @ turn.T  # ψ = Q·φ
    energy = float(one.square().sum()) / 60
    found = aligned(one.T @ other / 60, energy, energy)

    assert torch.allclose(turn.T, found.rotation_RN, atol=1e-8)
    assert found.explained == pytest.approx(1.0, abs=1e-10)


@given(SIDES, st.integers(1, 4), SEEDS)
def test_wider_features_are_met_at_their_own_scale(side: int, times: int, seed: int) -> None:
    """A network with every channel `times` over computes the same: √(R/N)·Â brings it back exactly."""
    one = features(60, side, seed)
    other = one.repeat(1, times)
    cross = one.T @ other / 60
    found = aligned(cross, float(one.square().sum()) / 60, float(other.square().sum()) / 60)

    assert torch.allclose(one, other @ found.rotation_RN.T, atol=1e-8 * float(one.abs().max()))
    assert found.explained == pytest.approx(1.0, abs=1e-10)


@given(SIDES, SIDES, SEEDS)
def test_polar_factors_are_orthonormal_on_the_smaller_side(rows: int, columns: int, seed: int) -> None:
    """U·Vᵀ keeps lengths, whatever the shape."""
    stream = torch.Generator().manual_seed(seed)
    found, _ = polar(torch.randn(rows, columns, generator=stream, dtype=torch.float64))
    gram = found @ found.T if rows <= columns else found.T @ found

    assert torch.allclose(torch.eye(min(rows, columns), dtype=torch.float64), gram, atol=1e-8)


def test_channels_that_never_fire_have_no_partner() -> None:
    """A direction without a singular value stays out, and so no sign of LAPACK's decides anything."""
    cross = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))

    assert torch.equal(torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)), polar(cross)[0])


def test_rotating_filters_rotates_what_they_see() -> None:
    """w'·ψ = w·(Âψ): on maps, and behind a flattened map pixel by pixel."""
    turn, stream = rotation(4, 0), torch.Generator().manual_seed(1)
    weight = torch.randn(5, 4 * 9, generator=stream, dtype=torch.float64)
    seen = torch.randn(4, 9, generator=stream, dtype=torch.float64)
    expected = weight @ (turn @ seen).flatten()

    assert torch.allclose(expected, rotated(weight, turn, 9) @ seen.flatten())
    assert torch.allclose(expected, rotated(weight.view(5, 4, 3, 3), turn).flatten(1) @ seen.flatten())
