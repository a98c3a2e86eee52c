"""Transfer over depth, kernel size and channels: torch's interpolation, spot values, PSD and traces."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.covariance import transfer
from mimetic.covariance.closed_form import closed_form_matrix
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.linalg import multiply

SIDES = st.integers(1, 9)

# Trace and sum of the k = 7, width 1 matrix resized to another side.
RESIZED = {
    (9, False): (5.9441370101, 55.2357505639),
    (5, False): (2.1465013175, 5.6923887215),
    (3, False): (0.8330100483, 0.9262134236),
    (9, True): (6.2432890444, 60.2558180258),
    (5, True): (1.8049949787, 4.3213390167),
    (3, True): (0.5446827753, 0.5737608729),
}


@given(SIDES, SIDES, st.booleans())
def test_interpolation_is_that_of_torch(target: int, source: int, align: bool) -> None:
    """R applied to both axes is torch's bilinear interpolation to 1e-12, and its rows sum to one."""
    image = torch.randn(1, 1, source, source, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(image, (target, target), mode="bilinear", align_corners=align)
    matrix = transfer.interpolation(target, source, align_corners=align)
    assert torch.allclose(expected[0, 0], matrix @ image[0, 0] @ matrix.T, atol=1e-12)
    assert torch.allclose(torch.ones(target, dtype=torch.float64), matrix.sum(dim=1))


@pytest.mark.parametrize(("side", "align"), RESIZED)
def test_resize_spot_values(side: int, align: bool) -> None:
    """(R⊗R) on the raw closed form of side seven has the reference's trace and sum."""
    matrix = transfer.interpolation(side, 7, align_corners=align)
    double = torch.kron(matrix, matrix)
    found = multiply(multiply(double, closed_form_matrix((7, 7), 1.0)), double.T)
    assert pytest.approx((float(found.trace()), float(found.sum())), abs=1e-9) == RESIZED[side, align]
    assert float(found[side * side // 2, side * side // 2]) == pytest.approx(0.5)


@given(st.integers(1, 12), st.integers(1, 3), st.tuples(*[st.integers(1, 6)] * 2), st.tuples(SIDES, SIDES))
def test_resizing_a_factor_is_the_kronecker_product(
    make: SimpleNamespace, rank: int, channels: int, old: tuple[int, int], new: tuple[int, int]
) -> None:
    """The separable resize of the factor is (I⊗R⊗R)·Σ·(I⊗R⊗R)ᵀ, PSD, for any sides."""
    cov = make.random_covariance(rank, channels, old)
    align = rank % 2 == 0
    rows = transfer.interpolation(new[0], old[0], align_corners=align)
    columns = transfer.interpolation(new[1], old[1], align_corners=align)
    operator = torch.kron(torch.eye(channels, dtype=torch.float64), torch.kron(rows, columns))
    found = transfer.resized(cov, new, align_corners=align)
    expected = operator @ cov.dense() @ operator.T
    assert torch.allclose(expected, found.dense(), atol=1e-10 * cov.trace)
    assert float(torch.linalg.eigvalsh(found.dense())[0]) >= -1e-10 * cov.trace


@given(st.integers(2, 7), st.integers(1, 9), st.sampled_from(["trace", "pixel"]))
def test_resizing_keeps_what_is_asked(make: SimpleNamespace, side: int, new: int, keep: str) -> None:
    """The trace, or the mean variance of a pixel, is that of before."""
    cov = make.random_covariance(6, 2, (side, side))
    found = transfer.resized(cov, (new, new), keep=keep)
    expected = cov.trace if keep == "trace" else cov.trace / side**2 * new**2
    assert expected == pytest.approx(found.trace)


def test_resizing_is_resizing_each_filter(make: SimpleNamespace) -> None:
    """The rows of the factor, seen as filters, are interpolated as images are; the note says so."""
    cov = make.random_covariance(4, 3, (5, 5))
    filters = cov.factor_RD.view(4, 3, 5, 5)
    expected = torch.nn.functional.interpolate(filters, (9, 9), mode="bilinear", align_corners=False)
    found = transfer.resized(cov, (9, 9))
    assert torch.allclose(expected.flatten(1), found.factor_RD)
    assert found.provenance.notes == ("resized 5×5→9×9",)
    assert transfer.resized(cov, (5, 5)) is cov


def test_depth_pairs_from_eight_to_twelve() -> None:
    """The places of twelve layers among eight are the reference's."""
    expected = [
        (0, 0.0), (0, 0.636364), (1, 0.272727), (1, 0.909091), (2, 0.545455), (3, 0.181818),
        (3, 0.818182), (4, 0.454545), (5, 0.090909), (5, 0.727273), (6, 0.363636), (7, 0.0),
    ]  # fmt: skip
    found = [transfer.depth_position(layer / 11, 8) for layer in range(12)]
    assert [pair[0] for pair in expected] == [pair[0] for pair in found]
    assert [pair[1] for pair in expected] == pytest.approx([pair[1] for pair in found], abs=1e-6)


@given(st.integers(1, 30), st.integers(1, 30))
def test_depth_is_a_place_among_the_layers(source: int, target: int) -> None:
    """Every place is one of the source's layers or between two, and equal depths map one to one."""
    for layer in range(target):
        lower, share = transfer.depth_position(layer / max(target - 1, 1), source)
        assert 0 <= lower < source
        assert 0.0 <= share < 1.0
        assert share == 0.0 or lower + 1 < source
        assert source != target or (lower == layer and share < 1e-9)


def test_contracting_channels_spot_values(make: SimpleNamespace) -> None:
    """Mapping the channel axis by a 4×3 matrix contracts a weight as the official rainbow code does."""
    left = make.lcg((40, 3), 63, 2.0)
    right = left @ make.lcg((3, 4), 64, 2.0) + 0.1 * make.lcg((40, 4), 65, 2.0)
    u, _, v = torch.linalg.svd(left.T @ right / 40, full_matrices=False)
    cov = Covariance(make.lcg((2, 3, 3, 3), 66).flatten(1), PatchGeometry(3, (3, 3)))
    found = transfer.with_channels(cov, (u @ v).T, note="aligned")
    weight = found.factor_RD.view(2, 4, 3, 3)
    assert float((u @ v)[2, 3]) == pytest.approx(0.905917763723, abs=1e-9)
    assert float(weight.sum()) == pytest.approx(0.931611872435, abs=1e-9)
    assert float(weight.norm()) == pytest.approx(1.931106867881, abs=1e-9)
    assert float(weight[1, 3, 2, 2]) == pytest.approx(0.299867129744, abs=1e-9)


def test_marginals_are_the_mean_diagonal_block(make: SimpleNamespace) -> None:
    """The spatial covariance is the mean over channels, of a C-th of the trace, and fits any channels."""
    cov = make.random_covariance(7, 4, (3, 3))
    blocks = cov.dense().view(4, 9, 4, 9)
    found = transfer.marginal(cov)
    assert torch.allclose(sum(blocks[c, :, c] for c in range(4)) / 4, found.dense())
    assert cov.trace / 4 == pytest.approx(found.trace)
    assert (found.patch.channels, found.rank) == (1, 9)
    assert transfer.marginal(found) is found


@given(st.integers(1, 4), st.integers(1, 4))
def test_tiling_keeps_the_energy(make: SimpleNamespace, own: int, times: int) -> None:
    """Repeated channels carry the blocks of the original, at the same energy of a filter."""
    cov = make.random_covariance(5, own, (3,))
    found = transfer.tiled(cov, own * times)
    assert cov.trace == pytest.approx(found.trace)
    assert torch.allclose(cov.dense() / times, found.dense()[: own * 3, : own * 3])


def test_grey_filters_answer_as_rgb_ones(make: SimpleNamespace) -> None:
    """Summed filters give on a grey image what the original gives on its three copies."""
    cov = make.random_covariance(6, 3, (3, 3))
    grey = transfer.grey_from_rgb(cov)
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    original = torch.nn.functional.conv2d(image.expand(1, 3, 8, 8), cov.factor_RD.view(6, 3, 3, 3))
    found = torch.nn.functional.conv2d(image, grey.factor_RD.view(6, 1, 3, 3))
    assert torch.allclose(original, found)
    assert torch.allclose(grey.dense(), transfer.grey_from_rgb(transfer.rgb_from_grey(grey)).dense())
