"""A metric against the epoch: the mean of each arm over seeds, with its 95 % band."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mimetic.analysis.interval import LEVEL, half_width
from mimetic.analysis.mosaic import Array
from mimetic.analysis.style import TICK, color, marker, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Mapping[int, float]
"""Epoch → value."""


def curves_figure(
    curves: Mapping[str, Mapping[int, Curve]],
    *,
    metric: str,
    unit: str = "",
    title: str | None = None,
    level: float = LEVEL,
) -> "Figure":
    """Return a figure with one line for each arm.

    The line is the mean over the seeds evaluated at that epoch, the band its Student's t interval; with
    one seed there is no band. It shows how far an arm's mean is known, not the difference between arms:
    those are paired by seed, and `comparison_figure` shows them.

    Args:
        curves: Arm → seed → curve.
        metric: Name of the metric, e.g. `test/acc`.
        unit: Its unit, e.g. `%`; empty where it has none.
        title: Title of the figure.
        level: Coverage of the band.

    Raises:
        ValueError: If no arm has a curve.
    """
    from matplotlib.ticker import MaxNLocator

    drawn = {arm: [curve for curve in seeds.values() if curve] for arm, seeds in curves.items()}
    if not any(drawn.values()):
        raise ValueError("no curve to draw")
    label = f"{metric} [{unit}]" if unit else metric
    figure = new_figure(7.2, 4.6)
    axes = figure.add_axes((0.1, 0.12, 0.87, 0.78))
    for index, arm in enumerate(curves):
        if not drawn[arm]:
            continue
        epochs, mean, low, high = band(drawn[arm], level=level)
        seeds = f"{len(drawn[arm])} seeds" if len(drawn[arm]) > 1 else "1 seed"
        axes.plot(
            epochs, mean, color=color(index), linewidth=1.8, label=f"{arm} ({seeds})",
            marker=marker(index), markersize=4.5, markevery=max(1, len(epochs) // 12),
        )  # fmt: skip
        axes.fill_between(epochs, low, high, color=color(index), alpha=0.18, linewidth=0)
    heading = f"{label}: mean over seeds and {level:.0%} band" if title is None else title
    quiet_axes(axes, x="epoch", y=label, title=heading)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    axes.legend(fontsize=TICK, frameon=False)
    return figure


def band(curves: Sequence[Curve], *, level: float = LEVEL) -> tuple[Array, Array, Array, Array]:
    """Return epochs, mean over seeds, and the ends of its t interval (NaN below two seeds)."""
    epochs = sorted(set().union(*curves))
    mean, reach = np.full(len(epochs), np.nan), np.full(len(epochs), np.nan)
    for place, epoch in enumerate(epochs):
        values = [curve[epoch] for curve in curves if epoch in curve]
        mean[place] = np.mean(values)
        if len(values) > 1:
            reach[place] = half_width(values, level=level)
    return np.array(epochs, dtype=np.float64), mean, mean - reach, mean + reach
