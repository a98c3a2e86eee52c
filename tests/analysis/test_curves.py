"""Curves of arms over epochs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mimetic.analysis.curves import band, curves_figure

ResolvedInit = Callable[[Any], np.ndarray]


def test_the_band_is_students_interval() -> None:
    """Equal to SciPy's, epoch by epoch; none where one seed was evaluated."""
    curves = [{0: 1.0, 1: 5.0}, {0: 2.0, 1: 7.0}, {0: 4.0, 2: 3.0}]

    epochs, mean, low, high = band(curves)

    expected = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(epochs, [0, 1, 2])
    np.testing.assert_allclose(mean, [7 / 3, 6.0, 3.0])
    np.testing.assert_allclose((low[0], high[0]), expected)
    assert np.isnan(low[2])


def test_each_arm_has_a_line(drawn: ResolvedInit) -> None:
    """The legend counts seeds; an arm without a curve is left out and keeps its colour free."""
    arms = {
        "default": {0: {0: 10.0, 1: 50.0}, 1: {0: 11.0, 1: 52.0}},
        "dead": {},
        "closed-form": {0: {0: 10.0}},
    }

    figure = curves_figure(arms, metric="test/acc", unit="%")

    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "default (2 seeds)",
        "closed-form (1 seed)",
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "test/acc [%]")
    assert drawn(figure).std() > 0


def test_nothing_to_draw_is_refused() -> None:
    """No trial finished."""
    with pytest.raises(ValueError, match="no curve"):
        curves_figure({"default": {}}, metric="test/acc")
