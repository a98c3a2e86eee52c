"""Windows of positions, their transpose, and which networks fit an image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mimetic.kernels.patches import Architecture, PatchInputs, spread_windows, tiles, window_sums


@given(rows=st.integers(3, 7), columns=st.integers(3, 7), side=st.integers(1, 3), seed=st.integers(0, 99))
def test_window_sums_and_their_transpose(rows: int, columns: int, side: int, seed: int) -> None:
    """Sums equal a convolution with ones; ⟨sums(x), y⟩ = ⟨x, spread(y)⟩ for all x and y."""
    stream = torch.Generator().manual_seed(seed)
    maps = torch.rand(rows * columns, 2, generator=stream, dtype=torch.float64)
    smaller = (rows - side + 1, columns - side + 1)
    others = torch.rand(smaller[0] * smaller[1], 2, generator=stream, dtype=torch.float64)
    sums = window_sums(maps, (rows, columns), side)
    images = maps.T.reshape(2, 1, rows, columns)
    expected = functional.conv2d(images, images.new_ones(1, 1, side, side)).flatten(1).T

    assert torch.allclose(expected, sums)
    assert float((sums * others).sum()) == pytest.approx(
        float((maps * spread_windows(others, smaller, side)).sum())
    )


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (Architecture(3, 3), ((4, 6), (2, 4), ())),
        (Architecture(3, 2), ((4, 6), (2, 4))),
        (Architecture(3, 3, padding=True), ((6, 8), (4, 6), (2, 4))),
        (Architecture(1, 2), ((6, 8), (6, 8))),
    ],
)
def test_grids(architecture: Architecture, expected: tuple[tuple[int, ...], ...]) -> None:
    """Each convolution takes side − 1 off; one that does not fit leaves no grid at all."""
    assert architecture.grids(6, 8) == (expected if expected[-1] else ())


def test_prepared_patches_have_unit_length_and_their_norms() -> None:
    """Patches times F are unit vectors, √Q their length over √c, later Q window sums; zeros stay zeros."""
    images = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[1, :, :3, :3] = 0.0
    factor = torch.diag(torch.linspace(0.1, 1.0, 27, dtype=torch.float64))
    found = PatchInputs(Architecture(3, 2), lambda pixels: pixels, factor).prepare(images)
    expected = functional.unfold(images, 3).permute(2, 0, 1) @ factor

    assert torch.allclose(expected, found.unit_PND * found.roots[0][:, :, None] * 3.0**0.5)
    assert float(found.inverses[0][0, 1]) == 0.0
    assert float(found.roots[1][0, 0].square()) == pytest.approx(float(expected[:, 0].square().sum() / 3.0))


def test_tiles_cover_everything_once() -> None:
    """Runs follow one another to the end."""
    assert list(tiles(7, 3)) == [(0, 3), (3, 6), (6, 7)]
