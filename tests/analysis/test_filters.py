"""The figure of filters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mimetic.analysis.filters import filters_figure

Render = Callable[[Any], np.ndarray]


def test_each_layer_has_a_strip_with_a_symmetric_range(drawn: Render) -> None:
    """Titles say how many filters there are and how many are shown."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "stem": torch.randn(8, 3, 3, 3, generator=generator),
        "blocks.0.spatial": torch.randn(100, 1, 7, 7, generator=generator),
    }

    figure = filters_figure(weights, title="Filters at the start")

    (axes,) = figure.axes
    titles = [text.get_text() for text in axes.texts if " of " in text.get_text()]
    assert titles == ["stem  24 of 3×3", "blocks.0.spatial  64/100 of 7×7"]
    assert len(axes.images) == 4  # each with its bar
    for image in axes.images:
        low, high = image.get_clim()
        assert low == -high
    assert figure.get_suptitle() == "Filters at the start"
    assert drawn(figure).std() > 0


@pytest.mark.parametrize(("layers", "count"), [(1, 64), (2, 16), (3, 256)])
def test_it_is_about_square(layers: int, count: int) -> None:
    """MLflow shows pictures in square tiles of 256 pixels, in which a wide one is illegible."""
    weights = {f"blocks.{layer}.spatial": np.ones((count, 1, 5, 5)) for layer in range(layers)}
    width, height = filters_figure(weights).get_size_inches()
    assert 0.75 < width / height < 1.33
    assert max(width, height) < 6.0


def test_red_is_above_zero_and_blue_below(drawn: Render) -> None:
    """The colours keep their meaning."""
    weight = np.ones((16, 1, 3, 3))

    red, _, blue = drawn(filters_figure({"a": weight})).reshape(-1, 3).mean(axis=0)
    red_below, _, blue_below = drawn(filters_figure({"a": -weight})).reshape(-1, 3).mean(axis=0)

    assert red > blue
    assert red_below < blue_below


def test_odd_shapes_are_drawn(drawn: Render) -> None:
    """One filter, rectangular kernels, zeros and missing values."""
    weights = {
        "one": np.zeros((1, 1, 3, 3)),
        "wide": np.ones((5, 1, 1, 7)),
        "holes": np.full((2, 1, 3, 3), np.nan),
    }

    assert drawn(filters_figure(weights)).std() > 0


def test_nothing_to_draw_is_refused() -> None:
    """A network without spatial filters has no such picture."""
    with pytest.raises(ValueError, match="no layer"):
        filters_figure({})
