"""Curves of arms over epochs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimetic.analysis.curves import Band, curves_figure

Render = Callable[[Any], np.ndarray]


def test_each_arm_has_a_line(drawn: Render) -> None:
    """The legend counts seeds; an arm without a curve is left out and keeps its colour free."""
    arms = {
        "default": Band(2, [0, 1], [10.5, 51.0], [1.0, 2.0]),
        "dead": Band(0, [], [], []),
        "closed-form": Band(1, [0], [10.0], [float("nan")]),
    }

    figure = curves_figure(arms, label="test/acc [%]")

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
        curves_figure({"default": Band(0, [], [], [])}, label="test/acc")
