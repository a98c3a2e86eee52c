"""The pictures of the ansatz: every layer a line, ends of training side by side."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimetic.analysis.ansatz import (
    COLUMNS,
    RHO,
    depth_figure,
    eigenfilters_figure,
    saliency_figure,
    training_figure,
)

Render = Callable[[Any], np.ndarray]

RHO_OF = {"stem": {0: 0.2, 2: 0.5, 4: 0.9}, "block": {0: 0.3, 2: 0.4, 4: 0.6}}
STREAM = np.random.default_rng(0)


def test_training_has_a_line_for_each_layer_and_both_ends_over_depth(drawn: Render) -> None:
    """Against epoch and, first against last, against depth; a layer that never changed has no line."""
    figure = training_figure(RHO_OF, rho_change={"block": {2: 0.7, 4: 0.8}}, rho_init={})
    over_epochs, change, start, depth = figure.axes
    assert [line.get_label() for line in over_epochs.lines] == ["stem", "block"]
    np.testing.assert_array_equal(over_epochs.lines[0].get_data(), [[0, 2, 4], [0.2, 0.5, 0.9]])
    assert (len(change.lines), len(start.lines)) == (1, 0)
    assert [line.get_label() for line in depth.lines] == ["epoch 0", "epoch 4"]
    np.testing.assert_array_equal(depth.lines[1].get_ydata(), [0.9, 0.6])
    assert [tick.get_text() for tick in depth.get_xticklabels()] == ["stem", "block"]
    assert drawn(figure).std() > 0


def test_one_measurement_is_a_picture_too(drawn: Render) -> None:
    """Killed after the start: one point, one line over depth."""
    figure = training_figure({"stem": {0: 0.2}}, rho_change={}, rho_init={"stem": {0: 1.0}})
    assert [line.get_label() for line in figure.axes[3].lines] == ["epoch 0"]
    assert drawn(figure).std() > 0


def test_deep_networks_name_few_layers(drawn: Render) -> None:
    """The first, the middle and the last in the legend; no tick for each of a hundred."""
    rho = {f"layer{i}": {0: 0.5, 1: i / 100} for i in range(100)}
    figure = training_figure(rho, rho_change={}, rho_init={})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["layer0", "layer50", "layer99"]
    assert len(figure.axes[3].get_xticklabels()) < 20
    assert drawn(figure).std() > 0


def test_series_share_the_layers_of_all(drawn: Render) -> None:
    """In the order they come; a layer one series lacks is a gap in its line alone."""
    figure = depth_figure({"trained": {"a": 0.9, "c": 0.8}, "untrained": {"a": 0.4, "b": 0.3, "c": 0.2}})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "c", "b"]
    np.testing.assert_array_equal(axes.lines[1].get_data(), [[0, 1, 2], [0.4, 0.2, 0.3]])
    assert axes.get_title(loc="left") == f"{RHO} over depth"
    assert drawn(figure).std() > 0


def test_nothing_to_draw() -> None:
    """Is said."""
    with pytest.raises(ValueError, match="no layer to draw"):
        training_figure({}, rho_change={}, rho_init={})
    with pytest.raises(ValueError, match="no layer to draw"):
        depth_figure({"trained": {}})


def test_each_layer_has_two_strips(drawn: Render) -> None:
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


def test_each_image_has_a_row(drawn: Render) -> None:
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


def test_no_pictures_to_draw() -> None:
    """Is said."""
    with pytest.raises(ValueError, match="no layer to draw"):
        eigenfilters_figure({})
    with pytest.raises(ValueError, match="no map to draw"):
        saliency_figure([], {"stem": (np.zeros((0, 2, 2)), np.zeros((0, 2, 2)))})
