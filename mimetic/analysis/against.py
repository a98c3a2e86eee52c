"""A result against a quantity that was varied: the mean over seeds of each kind of arm, with its interval."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mimetic.analysis.interval import LEVEL, half_width
from mimetic.analysis.style import TICK, color, marker, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Mapping[float, Sequence[float]]
"""Value of the quantity → the result on each seed."""


def against_figure(
    points: Mapping[str, Points], *, x: str, y: str, title: str = "", level: float = LEVEL
) -> "Figure":
    """Return a figure with one line for each kind of arm, on a logarithmic axis of base 2.

    The bars are Student's t intervals of the means; with one seed there are none. They show how far a mean is
    known, not the difference between kinds, which is paired by seed.

    Args:
        points: Kind of arm → its results; a kind with one value is drawn as a level across the figure.
        x: Label of the quantity.
        y: Label of the result.
        title: Title of the figure.
        level: Coverage of the bars.

    Raises:
        ValueError: If there is nothing to draw, or a value has no logarithm.
    """
    if not any(points.values()):
        raise ValueError("no point to draw")
    if any(value <= 0 for line in points.values() for value in line):
        raise ValueError("a logarithmic axis has positive values only")
    figure = new_figure(6.4, 4.2)
    axes = figure.add_axes((0.11, 0.13, 0.86, 0.77))
    values = sorted({value for line in points.values() if len(line) > 1 for value in line})
    for index, (kind, line) in enumerate(points.items()):
        means = [sum(results) / len(results) for results in line.values()]
        if len(line) == 1:
            axes.axhline(means[0], color=color(index), linewidth=1.2, linestyle="--", label=kind)
            continue
        bars = [half_width(results, level=level) for results in line.values()]
        axes.errorbar(
            list(line), means, yerr=bars, color=color(index), marker=marker(index), markersize=5,
            linewidth=1.8, capsize=3, label=kind,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:g}" for value in values])
    quiet_axes(axes, x=x, y=y, title=title)
    axes.legend(frameon=False, fontsize=TICK)
    return figure
