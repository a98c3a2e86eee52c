"""Draw a metric against the epoch: the mean of each arm over seeds, with a band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mimetic.analysis.style import TICK, color, line_style, marker, new_figure, quiet_axes
from mimetic.printable import pluralize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Mapping[int, float]
"""Epoch → value."""


@dataclass(frozen=True, slots=True)
class Band:
    """The curve of an arm.

    `reach` is half the height of the band at each epoch, NaN where there is none.
    """

    seeds: int
    epochs: Sequence[int]
    mean: Sequence[float]
    reach: Sequence[float]


def curves_figure(bands: Mapping[str, Band], *, label: str, title: str = "") -> "Figure":
    """Return a figure with one line and band for each arm.

    A band shows how well an arm's mean is known, not the difference between arms: differences are paired by
    seed and shown by `comparison_figure`.

    An arm without epochs is left out and keeps its color free.
    """
    from matplotlib.ticker import MaxNLocator

    if not any(band.epochs for band in bands.values()):
        raise ValueError("no curve to draw")
    figure = new_figure(7.2, 4.6)
    axes = figure.add_axes((0.1, 0.12, 0.87, 0.78))
    for index, (arm, band) in enumerate(bands.items()):
        if not band.epochs:
            continue
        mean, reach = np.array(band.mean), np.array(band.reach)
        seeds = pluralize(band.seeds, "seed")
        axes.plot(
            band.epochs, mean, color=color(index), linewidth=1.8, label=f"{arm} ({seeds})",
            linestyle=line_style(index), marker=marker(index), markersize=4.5,
            markevery=max(1, len(mean) // 12),
        )  # fmt: skip
        axes.fill_between(
            band.epochs, mean - reach, mean + reach, color=color(index), alpha=0.18, linewidth=0
        )
    quiet_axes(axes, x="epoch", y=label, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
    axes.legend(fontsize=TICK, frameon=False)
    return figure
