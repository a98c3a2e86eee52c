"""The ansatz NFM ∝ AGOP over depth and over training (arXiv 2309.00570).

Curves run from dark to light with depth, as in the pictures of a harvest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mimetic.analysis.curves import Curve
from mimetic.analysis.style import TICK, color, marker, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RHO, RHO_CHANGE, RHO_INIT = "ρ(NFM, AGOP)", "ρ(ΔWᵀΔW, ΔWᵀSΔW)", "ρ(NFM at the start, NFM)"
"""The measures as axes call them."""

_NAMED = 8
_TICKS = 40
_LIGHTEST = 0.9


def training_figure(
    rho: Mapping[str, Curve],
    *,
    rho_change: Mapping[str, Curve],
    rho_init: Mapping[str, Curve],
    title: str = "The ansatz during training",
) -> "Figure":
    """Return a figure with correlations against epoch, and that of NFM and AGOP against depth.

    Args:
        rho: Layer → epoch → ρ(NFM, AGOP), layers in execution order.
        rho_change: The same of ΔWᵀΔW and ΔWᵀSΔW; a layer that has not changed has no entry.
        rho_init: The same of the NFM at the start and now.
        title: Title of the figure.

    Raises:
        ValueError: If there is no layer.
    """
    if not any(rho.values()):
        raise ValueError("no layer to draw")
    layers = list(rho)
    below = _label_height(layers)
    width, height = 11.4 + 0.075 * min(max(map(len, layers)), 40), 7.6 + below
    figure = new_figure(width, height, title)
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
    _depth_panel(boxes[3], ends, RHO)
    corner = (10.75 / width, (below + 6.9) / height)
    handles, labels = boxes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=TICK, frameon=False, loc="upper left", bbox_to_anchor=corner)
    return figure


def depth_figure(
    series: Mapping[str, Mapping[str, float]], *, measure: str = RHO, title: str | None = None
) -> "Figure":
    """Return a figure with a measure against depth, one line for each series.

    Args:
        series: Name (`trained`, `untrained`) → layer → value, layers in execution order.
        measure: Label of the axis.
        title: Title of the figure.

    Raises:
        ValueError: If there is no layer.
    """
    if not any(series.values()):
        raise ValueError("no layer to draw")
    layers = list(dict.fromkeys(layer for values in series.values() for layer in values))
    width = max(6.4, 1.6 + 0.3 * min(len(layers), _TICKS))
    below = 0.2 + _label_height(layers)
    height = 3.9 + below
    figure = new_figure(width, height, title)
    axes = figure.add_axes((0.75 / width, below / height, (width - 0.95) / width, 3.1 / height))
    _depth_panel(axes, series, measure)
    return figure


def _epochs_panel(axes: "Axes", curves: Mapping[str, Curve], layers: Sequence[str], measure: str) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    ramp = colormaps["viridis"]
    named = set(layers) if len(layers) <= _NAMED else {layers[0], layers[len(layers) // 2], layers[-1]}
    for index, layer in enumerate(layers):
        curve = curves.get(layer, {})
        if not curve:
            continue
        shade = ramp(_LIGHTEST * index / max(len(layers) - 1, 1))
        epochs = sorted(curve)
        label = layer if layer in named else None
        axes.plot(epochs, [curve[epoch] for epoch in epochs], color=shade, linewidth=1.4, label=label)
    quiet_axes(axes, x="epoch", title=measure)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)


def _depth_panel(axes: "Axes", series: Mapping[str, Mapping[str, float]], measure: str) -> None:
    layers = list(dict.fromkeys(layer for values in series.values() for layer in values))
    for index, (name, values) in enumerate(series.items()):
        places = [place for place, layer in enumerate(layers) if layer in values]
        heights = [values[layers[place]] for place in places]
        look = {"color": color(index), "marker": marker(index), "markersize": 4.5, "linewidth": 1.4}
        axes.plot(places, heights, label=name, **look)  # type: ignore[arg-type]
    quiet_axes(axes, title=f"{measure} over depth")
    if len(layers) <= _TICKS:
        axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=TICK - 1)
    else:
        axes.set_xlabel("layer, in execution order", fontsize=TICK)
    axes.margins(x=0.03)
    axes.legend(fontsize=TICK, frameon=False, loc="best")


def _label_height(layers: Sequence[str]) -> float:
    """Return the inches that upright names of layers take, where they are written."""
    return 0.075 * min(max(map(len, layers)), 40) if len(layers) <= _TICKS else 0.3
