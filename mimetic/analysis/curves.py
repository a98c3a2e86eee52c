"""A metric against the epoch: the mean of each arm over seeds, with its 95 % band."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

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
    level: float = 0.95,
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


def band(curves: Sequence[Curve], *, level: float = 0.95) -> tuple[Array, Array, Array, Array]:
    """Return epochs, mean over seeds, and the ends of its t interval (NaN below two seeds)."""
    from scipy.special import stdtrit

    epochs = sorted(set().union(*curves))
    mean, reach = np.full(len(epochs), np.nan), np.full(len(epochs), np.nan)
    for place, epoch in enumerate(epochs):
        values = np.array([curve[epoch] for curve in curves if epoch in curve])
        mean[place] = values.mean()
        if len(values) > 1:
            quantile = float(stdtrit(len(values) - 1, (1.0 + level) / 2.0))
            reach[place] = quantile * values.std(ddof=1) / np.sqrt(len(values))
    return np.array(epochs, dtype=np.float64), mean, mean - reach, mean + reach
