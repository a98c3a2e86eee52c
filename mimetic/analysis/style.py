"""What all figures share: fonts, colours that colour-blind people distinguish, axes without clutter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DIVERGING = "RdBu_r"
"""White is zero; red and blue stay apart for all common kinds of colour blindness."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
"""Okabe and Ito's palette, the dark ones first; yellow is left out, it vanishes on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TITLE, LABEL, TICK = 12, 10, 9
INK, FAINT = "#222222", "#D9D9D9"

_LIGHTEST = 0.9

T = TypeVar("T")


def new_figure(width: float, height: float, title: str | None = None) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    if title is not None:
        figure.suptitle(title, fontsize=TITLE, color=INK, x=0.5, y=1.0 - 0.12 / height, va="top")
    return figure


def quiet_axes(axes: "Axes", *, x: str = "", y: str = "", title: str = "", grid: bool = True) -> None:
    """Label axes and take away what carries no data."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.set_title(title, fontsize=LABEL, color=INK, loc="left")
    axes.tick_params(labelsize=TICK, colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    if grid:
        axes.grid(visible=True, color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)


def bare_axes(axes: "Axes", *, title: str = "") -> None:
    """Leave axes with a title alone, for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=LABEL, color=INK, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)


def color(index: int) -> str:
    """Return the colour of the arm at an index; they repeat after eight, their markers too."""
    return COLORS[index % len(COLORS)]


def depth_color(index: int, count: int) -> "tuple[float, float, float, float]":
    """Return the colour of a layer among `count`, dark to light with depth."""
    from matplotlib import colormaps

    return colormaps["viridis"](_LIGHTEST * index / max(count - 1, 1))


def marker(index: int) -> str:
    """Return the marker of the arm at an index."""
    return MARKERS[(index + index // len(COLORS)) % len(MARKERS)]


def color_bar(figure: "Figure", image: "AxesImage", axes: "Axes", limit: float, *, digits: int) -> None:
    """Draw the bar of an image whose colours are symmetric about zero, without a frame."""
    bar = figure.colorbar(image, cax=axes, ticks=[-limit, 0.0, limit])
    bar.ax.set_yticklabels([f"−{limit:.{digits}g}", "0", f"{limit:.{digits}g}"], fontsize=TICK, color=INK)
    bar.outline.set_visible(False)


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
