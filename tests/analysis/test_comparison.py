"""The figure of the comparison."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimetic.analysis.comparison import comparison_figure

Render = Callable[[Any], np.ndarray]


def arm(
    name: str, values: dict[str, float], difference: tuple[float | None, ...] | None = None
) -> dict[str, Any]:
    """Return an arm as `comparison.json` holds it."""
    ends = None if difference is None else dict(zip(("mean", "low", "high"), difference, strict=True))
    return {"arm": name, "values": values, "difference": ends}


def study(*arms: dict[str, Any], unit: str = "%") -> dict[str, Any]:
    """Return a comparison as `comparison.json` holds it."""
    metric = "test/acc" if unit else "test/loss"
    return {
        "metric": metric,
        "unit": unit,
        "baseline": "default",
        "level": 0.95,
        "comparisons": 2,
        "arms": list(arms),
    }


def test_seeds_means_and_intervals_are_drawn(drawn: Render) -> None:
    """Arms from top to bottom, in their order; an interval only where there is one."""
    figure = comparison_figure(
        study(
            arm("default", {"0": 90.0, "1": 92.0}),
            arm("closed-form", {"0": 95.0, "1": 96.0}, (4.5, 3.0, 6.0)),
            arm("single", {"0": 91.0}, (1.0, None, None)),
            arm("dead", {}, (None, None, None)),
        ),
        title="quickstart",
    )

    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "default",
        "closed-form",
        "single",
        "dead",
    ]
    assert [line.get_xdata()[0] for line in left.lines if line.get_marker() == "|"] == [91.0, 95.5, 91.0]
    assert [list(line.get_xdata()) for line in right.lines if line.get_linewidth() == 2.5] == [[3.0, 6.0]]
    assert [line.get_xdata()[0] for line in right.lines if line.get_marker() == "D"] == [4.5, 1.0]
    assert (left.get_xlabel(), right.get_xlabel()) == ("test/acc [%]", "difference [percent points]")
    assert "no trial finished" in [text.get_text() for text in left.texts]
    assert drawn(figure).std() > 0


def test_losses_have_their_own_unit(drawn: Render) -> None:
    """Differences of losses are in units of the loss."""
    figure = comparison_figure(study(arm("default", {"0": 0.5}), unit=""))

    assert figure.axes[1].get_xlabel() == "difference [test/loss]"
    assert drawn(figure).std() > 0


def test_nothing_to_draw_is_refused() -> None:
    """No trial finished."""
    with pytest.raises(ValueError, match="no value"):
        comparison_figure(study(arm("default", {})))
