"""The picture of a covariance."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimetic.analysis.covariance_map import blocks, covariance_figure, covariance_maps

Render = Callable[[Any], np.ndarray]


def test_block_ij_is_the_covariance_of_pixel_ij() -> None:
    """Laid out where the pixel lies in the filter."""
    matrix = np.random.default_rng(0).normal(size=(6, 6))

    laid = blocks(matrix, (2, 3))

    for i in range(2):
        for j in range(3):
            block = laid[2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            np.testing.assert_array_equal(block, matrix[3 * i + j].reshape(2, 3))


def test_the_map_is_the_second_moment_of_the_filters(drawn: Render) -> None:
    """Filters of all channels count alike."""
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3))

    figure = covariance_figure({"stem": weight})

    flat = weight.reshape(8, 9)
    expected = blocks(flat.T @ flat / 8, (3, 3))
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected)
    assert figure.axes[0].texts[0].get_text() == "stem"
    assert drawn(figure).std() > 0


def test_the_spectrum_is_relative_to_the_largest(drawn: Render) -> None:
    """Eigenvalues 4, 2, 1 and a zero, which has no place on a logarithmic axis."""
    figure = covariance_maps({"given": (np.diag([1.0, 4.0, 0.0, 2.0]), (2, 2))})

    pictures, spectrum = figure.axes
    order, relative = spectrum.lines[0].get_data()
    np.testing.assert_allclose(relative, [1.0, 0.5, 0.25])
    np.testing.assert_array_equal(order, [1, 2, 3])
    assert spectrum.get_title(loc="left") == "eigenvalue / largest (4)"
    assert pictures.texts[-1].get_text() == "leading 4, 100% of trace"
    assert drawn(figure).std() > 0


def test_odd_covariances_are_drawn(drawn: Render) -> None:
    """Zero, not positive semidefinite, rectangular, and many at once."""
    maps = {
        "zero": (np.zeros((9, 9)), (3, 3)),
        "negative": (-np.eye(9), (3, 3)),
        "wide": (np.eye(5), (1, 5)),
    }

    assert drawn(covariance_maps(maps)).std() > 0


@pytest.mark.parametrize("kernel", [(3, 3), (4,), (2, 2, 1)])
def test_a_matrix_must_fit_its_kernel(kernel: tuple[int, ...]) -> None:
    """The message names the layer."""
    with pytest.raises(ValueError, match="stem"):
        covariance_maps({"stem": (np.eye(4), kernel)})


def test_nothing_to_draw_is_refused() -> None:
    """No layer, no picture."""
    with pytest.raises(ValueError, match="no covariance"):
        covariance_figure({})
