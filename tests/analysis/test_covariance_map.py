"""The picture of a covariance."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from mimetic.analysis.covariance_map import blocks, covariance_figure, covariance_maps
from mimetic.analysis.filters import filters_figure

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


def test_spectra_are_relative_to_their_largest(drawn: Render) -> None:
    """Eigenvalues 4, 2, 1 and a zero, which has no place on a logarithmic axis; the name has their colour."""
    maps = {"given": (np.diag([1.0, 4.0, 0.0, 2.0]), (2, 2)), "x" * 60: (np.eye(4), (2, 2))}
    figure = covariance_maps(maps)

    pictures, spectra = figure.axes
    order, relative = spectra.lines[0].get_data()
    np.testing.assert_allclose(relative, [1.0, 0.5, 0.25])
    np.testing.assert_array_equal(order, [1, 2, 3])
    inks = {text.get_text()[0]: text.get_color() for text in pictures.texts}
    assert [inks["g"], inks["…"]] == [line.get_color() for line in spectra.lines]
    assert inks["g"] != inks["…"]
    assert drawn(figure).std() > 0


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("draw", [covariance_figure, filters_figure])
def test_pictures_are_legible_in_tiles(draw: Callable[[Any], Any], layers: int) -> None:
    """MLflow shows them in 256×256 pixels: text is 6 pixels high and inside, pictures do not touch it."""
    weights = np.random.default_rng(0).normal(size=(layers, 80, 1, 9, 9))
    figure = draw({f"stages.{index}.blocks.10.conv_dw": weight for index, weight in enumerate(weights)})

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    whole, pictures = figure.bbox, figure.axes[0]
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert min(sizes) * 256 / max(whole.width, whole.height) * figure.dpi / 72 >= 6.0
    taken = [image.get_window_extent(renderer) for image in pictures.images]
    for text in [*figure.texts, *pictures.texts]:
        box = text.get_window_extent(renderer)
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1, text
        assert not box.count_overlaps(taken), text
        taken.append(box)


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
