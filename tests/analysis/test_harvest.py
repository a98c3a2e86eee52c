"""The picture of a harvest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimetic.analysis.harvest import LAYERS, Spectrum, harvest_figure

Render = Callable[[Any], np.ndarray]


def layer(count: int = 9, filters: int = 4) -> Spectrum:
    """Return a layer with a falling spectrum and random filters."""
    stream = np.random.default_rng(0)
    return Spectrum(np.geomspace(8.0, 1e-3, count), stream.normal(size=(filters, 3, 3)), "trace 1")


def test_spectra_are_relative_to_the_largest(drawn: Render) -> None:
    """Over the share of their number; zeros have no place on a logarithmic axis."""
    figure = harvest_figure({"a": Spectrum([4.0, 1.0, 0.0, 0.0]), "b": layer()})
    first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_data(), [[0.25, 0.5], [1.0, 0.25]])
    assert len(second.get_xdata()) == 9
    assert drawn(figure).std() > 0


def test_every_layer_with_a_kernel_has_a_strip(drawn: Render) -> None:
    """Named, noted, each filter scaled by its own largest value."""
    figure = harvest_figure({"stem": layer(), "head": Spectrum([1.0, 0.5]), "last": layer(filters=2)})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["spectra", "stem   trace 1", "last   trace 1"]
    shown = figure.axes[1].images[0].get_array()
    assert (float(np.nanmax(np.abs(shown))), shown.shape) == (1.0, (3, 47))
    assert drawn(figure).std() > 0


def test_deep_networks_show_some_layers_evenly() -> None:
    """Spectra of all, strips of the first, the last and others between."""
    figure = harvest_figure({f"layer{index}": layer() for index in range(50)})
    titles = [axes.get_title(loc="left").split()[0] for axes in figure.axes[1:]]
    assert (len(figure.axes[0].lines), len(titles)) == (50, LAYERS)
    assert (titles[0], titles[-1]) == ("layer0", "layer49")


def test_layers_of_zero_are_drawn(drawn: Render) -> None:
    """A covariance that is zero has neither a spectrum nor a scale, and breaks nothing."""
    assert drawn(harvest_figure({"a": Spectrum(np.zeros(4), np.zeros((2, 3, 3)))})).size > 0


def test_there_must_be_a_layer() -> None:
    """Nothing is no picture."""
    with pytest.raises(ValueError, match="no layer to draw"):
        harvest_figure({})
