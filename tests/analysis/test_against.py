"""A result against a quantity: what is drawn, and the interval of a mean."""

import math

import pytest
from scipy import stats

from mimetic.analysis.against import against_figure
from mimetic.analysis.interval import half_width


def test_lines_and_levels() -> None:
    """A kind with several values is a line with bars, one with a single value a level."""
    points = {"frozen": {1: [34.0, 35.0], 4: [40.0, 41.0], 16: [43.0]}, "plain": {1: [42.0, 43.0]}}
    (axes,) = against_figure(points, x="E", y="accuracy [%]").axes

    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "frozen"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "4", "16"]
    (line,) = [container.lines[0] for container in axes.containers]
    assert line.get_ydata().tolist() == [34.5, 40.5, 43.0]


def test_interval_is_students() -> None:
    """As scipy has it; one result has none, and what diverged has no end."""
    results = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.9, 2, loc=7 / 3, scale=stats.sem(results))

    assert half_width(results, level=0.9) == pytest.approx((high - low) / 2)
    assert half_width([3.0], level=0.9) == 0.0
    assert math.isnan(half_width([3.0, math.inf]))


@pytest.mark.parametrize("points", [{}, {"a": {}}, {"a": {0.0: [1.0], 1.0: [2.0]}}])
def test_nothing_to_draw(points: dict[str, dict[float, list[float]]]) -> None:
    """No points, or values without a logarithm, are refused."""
    with pytest.raises(ValueError, match=r"no point|positive"):
        against_figure(points, x="E", y="accuracy")
