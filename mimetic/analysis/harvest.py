"""A harvest as a picture: the spectrum of every layer, and the filters along its leading eigenvectors.

Shapes: K eigenvalues, N filters, H rows and W columns of a filter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mimetic.analysis.mosaic import draw_strip
from mimetic.analysis.style import depth_color, new_figure, quiet_axes, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYERS = 16
"""Most layers whose filters are drawn, evenly over depth; spectra are drawn of all."""

COLUMNS = 12
"""Filters drawn of each."""

_FLOOR = 1e-8


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What the picture needs of one layer.

    Eigenvalues come largest first; there are no filters where there is no kernel to draw.
    """

    values_K: ArrayLike
    filters_NHW: ArrayLike | None = None
    note: str = ""


def harvest_figure(layers: Mapping[str, Spectrum], *, title: str = "Covariances") -> "Figure":
    """Return a figure with the spectra of all layers on the left and leading eigen-filters on the right.

    `layers` is layer → its spectrum, in execution order; curves run from dark to light with depth.
    """
    if not layers:
        raise ValueError("no layer to draw")
    drawn = {name: layer for name, layer in layers.items() if layer.filters_NHW is not None}
    chosen = spread(list(drawn), LAYERS)
    head, foot, row = 0.6, 0.65, 0.78
    height = max(4.2, head + row * len(chosen) + 0.2)
    width = 11.6 if chosen else 5.0
    figure = new_figure(width, height, title)
    tall = min(height - head - foot, 5.0)
    axes = figure.add_axes((0.75 / width, (height - head - tall) / height, 4.0 / width, tall / height))
    _spectra(axes, layers)
    for index, name in enumerate(chosen):
        bottom = height - head - row * (index + 1) + 0.08
        strip = figure.add_axes((5.3 / width, bottom / height, 6.1 / width, (row - 0.3) / height))
        layer = drawn[name]
        assert layer.filters_NHW is not None
        draw_strip(strip, layer.filters_NHW, columns=COLUMNS, title=f"{name}   {layer.note}".rstrip())
    return figure


def _spectra(axes: "Axes", layers: Mapping[str, Spectrum]) -> None:
    """Draw eigenvalues over their share of the largest against their share of the number of them."""
    for index, (name, layer) in enumerate(layers.items()):
        values_K = np.asarray(layer.values_K, dtype=np.float64)
        largest = float(values_K.max(initial=0.0))
        relative = values_K / largest if largest > 0.0 else values_K
        drawn = relative > _FLOOR
        place = np.arange(1, len(values_K) + 1) / max(len(values_K), 1)
        color = depth_color(index, len(layers))
        axes.semilogy(place[drawn], relative[drawn], color=color, linewidth=1.3, label=name)
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(top=2.0)
    quiet_axes(axes, x="index / number of eigenvalues", y="eigenvalue / largest", title="spectra")
    axes.minorticks_off()
    names = list(layers)
    if len(names) > 1:
        handles, _ = axes.get_legend_handles_labels()
        axes.legend(
            [handles[0], handles[-1]], [names[0], names[-1]], fontsize=8, frameon=False, loc="lower left"
        )
