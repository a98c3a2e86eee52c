"""Eigen-filters of two matrices side by side, and maps beside their images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimetic.analysis.ansatz_pictures import COLUMNS, eigenfilters_figure, saliency_figure

ResolvedInit = Callable[[Any], np.ndarray]
STREAM = np.random.default_rng(0)


def test_each_layer_has_two_strips(drawn: ResolvedInit) -> None:
    """In colour where it sees colours; a matrix of low rank leaves places empty."""
    gray, colored = STREAM.normal(size=(9, 3, 3)), STREAM.normal(size=(8, 5, 5, 3))
    figure = eigenfilters_figure({"stem": (colored, colored[:3]), "block": (gray, gray[:2])})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["stem", "", "block", ""]
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert [array.shape for array in shown] == [(5, 47, 3), (5, 47, 3), (3, 31), (3, 31)]
    assert int(np.isfinite(np.ma.filled(shown[2], np.nan)).sum()) == COLUMNS * 9
    assert int(np.isfinite(np.ma.filled(shown[3], np.nan)).sum()) == 2 * 9
    assert [text.get_text() for text in figure.texts][-2:] == ["NFM", "AGOP"]
    assert drawn(figure).std() > 0


def test_each_image_has_a_row(drawn: ResolvedInit) -> None:
    """The image, then two maps for each layer, each bright on its own scale; a black map stays black."""
    pictures = [STREAM.uniform(size=(8, 8, 3)), STREAM.uniform(size=(8, 8))]
    maps = STREAM.uniform(size=(2, 4, 4))
    figure = saliency_figure(pictures, {"stem": (maps, 100.0 * maps), "last": (maps, 0.0 * maps)})
    assert len(figure.axes) == 2 * (1 + 2 * 2)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:5]]
    assert titles == ["", "stem\nNFM", "\nAGOP", "last\nNFM", "\nAGOP"]
    ranges = [axes.images[0].get_clim() for axes in figure.axes[1:5]]
    assert ranges[1] == pytest.approx(tuple(100.0 * end for end in ranges[0]))
    assert ranges[3] == (0.0, 1.0)
    assert drawn(figure).std() > 0


def test_nothing_to_draw() -> None:
    """Is said."""
    with pytest.raises(ValueError, match="no layer to draw"):
        eigenfilters_figure({})
    with pytest.raises(ValueError, match="no map to draw"):
        saliency_figure([], {"stem": (np.zeros((0, 2, 2)), np.zeros((0, 2, 2)))})
