"""Draw the ansatz NFM ∝ AGOP (arXiv 2309.00570): correlations, eigen-filters, and maps over images.

Curves run from dark to light with depth. Shapes: N pictures, H rows, W columns; a last axis of 3 is color.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mimetic.analysis.curves import Curve
from mimetic.analysis.mosaic import draw_strip
from mimetic.analysis.style import (
    INK,
    LABEL,
    TICK,
    bare_axes,
    color,
    depth_color,
    line_style,
    marker,
    new_figure,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RHO, RHO_CHANGE, RHO_INIT = "ρ(NFM, AGOP)", "ρ(ΔWᵀΔW, ΔWᵀSΔW)", "ρ(NFM at the start, NFM)"
"""Axis labels of the measures."""

COLUMNS = 8
"""Eigen-filters drawn of each matrix."""

_BRIGHTEST = 0.995
_NAMED = 8
_TICKS = 40


def training_figure(
    rho: Mapping[str, Curve], *, rho_change: Mapping[str, Curve], rho_init: Mapping[str, Curve]
) -> "Figure":
    """Return a figure with correlations against epoch, and that of NFM and AGOP against depth.

    Curves are layer → epoch → value, layers in execution order: ρ(NFM, AGOP), that of ΔWᵀΔW and ΔWᵀSΔW, where
    a layer that has not changed has no entry, and that of the NFM at the start and now.
    """
    if not any(rho.values()):
        raise ValueError("no layer to draw")
    layers = list(rho)
    below = _label_height(layers)
    width, height = 11.4 + 0.075 * min(max(map(len, layers)), 40), 7.6 + below
    figure = new_figure(width, height, "The ansatz during training")
    boxes = [
        figure.add_axes((x / width, y / height, 4.7 / width, 2.8 / height))
        for y in (below + 4.0, below + 0.35)
        for x in (0.6, 6.0)
    ]
    _epochs_panel(boxes[0], rho, layers, RHO)
    _epochs_panel(boxes[1], rho_change, layers, RHO_CHANGE)
    _epochs_panel(boxes[2], rho_init, layers, RHO_INIT)
    epochs = {epoch for curve in rho.values() for epoch in curve}
    ends = {
        f"epoch {epoch}": {layer: curve[epoch] for layer, curve in rho.items() if epoch in curve}
        for epoch in sorted({min(epochs), max(epochs)})
    }
    _depth_panel(boxes[3], ends)
    corner = (10.75 / width, (below + 6.9) / height)
    handles, labels = boxes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=TICK, frameon=False, loc="upper left", bbox_to_anchor=corner)
    return figure


def depth_figure(series: Mapping[str, Mapping[str, float]], *, title: str | None = None) -> "Figure":
    """Return a figure with ρ(NFM, AGOP) against depth, one line for each series.

    `series` is name (`trained`, `untrained`) → layer → value, layers in execution order.
    """
    if not any(series.values()):
        raise ValueError("no layer to draw")
    layers = list(dict.fromkeys(layer for values in series.values() for layer in values))
    width = max(6.4, 1.6 + 0.3 * min(len(layers), _TICKS))
    below = 0.2 + _label_height(layers)
    height = 3.9 + below
    figure = new_figure(width, height, title)
    axes = figure.add_axes((0.75 / width, below / height, (width - 0.95) / width, 3.1 / height))
    _depth_panel(axes, series)
    return figure


def eigenfilters_figure(
    layers: Mapping[str, tuple[ArrayLike, ArrayLike]], *, title: str = "Leading eigenvectors"
) -> "Figure":
    """Return a figure with the leading eigen-filters of each layer's NFM beside those of its AGOP.

    `layers` is layer → filters of NFM and of AGOP, each (N, H, W), or (N, H, W, 3) in color.
    """
    if not layers:
        raise ValueError("no layer to draw")
    row, head, strip = 0.86, 0.78, 4.6
    width, height = 2 * strip + 0.7, head + row * len(layers) + 0.08
    figure = new_figure(width, height, title)
    for column, name in enumerate(("NFM", "AGOP")):
        left = (0.2 + column * (strip + 0.3)) / width
        figure.text(left, 1.0 - 0.62 / height, name, fontsize=LABEL, color=INK, weight="bold")
    for index, (name, pair) in enumerate(layers.items()):
        bottom = (height - head - row * (index + 1) + 0.06) / height
        for column, filters in enumerate(pair):
            left = (0.2 + column * (strip + 0.3)) / width
            axes = figure.add_axes((left, bottom, strip / width, (row - 0.28) / height))
            draw_strip(axes, filters, columns=COLUMNS, title=name if column == 0 else "")
    return figure


def saliency_figure(
    pictures: Sequence[ArrayLike],
    layers: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str | None = None,
) -> "Figure":
    """Return a figure with a row for each image: the image, then the maps of NFM and AGOP at each layer.

    The brightness of each map ranges from zero to its 99.5 % quantile.

    Pictures are (H, W, 3) or (H, W) in [0, 1]; `layers` is layer → maps (N, H, W) of NFM and AGOP.
    """
    if not len(pictures) or not layers:
        raise ValueError("no map to draw")
    side, gap, head = 1.35, 0.06, 0.95
    columns = 1 + 2 * len(layers)
    width = 0.2 + columns * (side + gap) + 0.14 * len(layers)
    height = head + len(pictures) * (side + gap) + 0.1
    figure = new_figure(width, height, title)

    def box(row: int, column: int) -> "Axes":
        left = 0.12 + column * (side + gap) + 0.14 * ((column + 1) // 2)
        bottom = height - head - (row + 1) * (side + gap) + gap
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        bare_axes(axes)
        return axes

    for row, picture in enumerate(pictures):
        box(row, 0).imshow(np.asarray(picture), cmap="gray", vmin=0.0, vmax=1.0)
        for index, (name, pair) in enumerate(layers.items()):
            for which, maps in enumerate(pair):
                axes = box(row, 1 + 2 * index + which)
                map_HW = np.asarray(maps, dtype=np.float64)[row]
                brightest = float(np.quantile(map_HW, _BRIGHTEST))
                axes.imshow(
                    map_HW,
                    cmap="inferno",
                    vmin=0.0,
                    vmax=brightest if brightest > 0.0 else 1.0,
                    interpolation="nearest",
                )
                if row == 0:
                    above = f"{name}\nNFM" if which == 0 else "\nAGOP"
                    axes.set_title(above, fontsize=TICK, color=INK, loc="left")
    return figure


def _epochs_panel(axes: "Axes", curves: Mapping[str, Curve], layers: Sequence[str], measure: str) -> None:
    from matplotlib.ticker import MaxNLocator

    named = set(layers) if len(layers) <= _NAMED else {layers[0], layers[len(layers) // 2], layers[-1]}
    for index, layer in enumerate(layers):
        curve = curves.get(layer, {})
        if not curve:
            continue
        epochs, values = zip(*sorted(curve.items()), strict=True)
        label = layer if layer in named else None
        axes.plot(epochs, values, color=depth_color(index, len(layers)), linewidth=1.4, label=label)
    quiet_axes(axes, x="epoch", title=measure)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)


def _depth_panel(axes: "Axes", series: Mapping[str, Mapping[str, float]]) -> None:
    layers = list(dict.fromkeys(layer for values in series.values() for layer in values))
    for index, (name, values) in enumerate(series.items()):
        places = [place for place, layer in enumerate(layers) if layer in values]
        heights = [values[layers[place]] for place in places]
        axes.plot(
            places,
            heights,
            color=color(index),
            linestyle=line_style(index),
            linewidth=1.4,
            marker=marker(index),
            markersize=4.5,
            label=name,
        )
    quiet_axes(axes, title=f"{RHO} over depth")
    if len(layers) <= _TICKS:
        axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=TICK - 1)
    else:
        axes.set_xlabel("layer, in execution order", fontsize=TICK)
    axes.margins(x=0.03)
    axes.legend(fontsize=TICK, frameon=False, loc="best")


def _label_height(layers: Sequence[str]) -> float:
    """Return the inches that upright names of layers take, where they are written."""
    return 0.075 * min(max(map(len, layers)), 40) if len(layers) <= _TICKS else 0.3
