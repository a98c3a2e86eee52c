"""What all figures share: fonts, colours that colour-blind people distinguish, axes without clutter."""

import colorsys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimetic.errors import RunError, UserError
from mimetic.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Left, bottom, width and height, in inches."""

DIVERGING = "RdBu_r"
"""White is zero; red and blue stay apart for all common kinds of colour blindness."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
"""Okabe and Ito's palette, the dark ones first; yellow is left out, it vanishes on white."""

LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TITLE, LABEL, TICK = 12, 10, 9
INK, FAINT = "#222222", "#D9D9D9"

_LEVELS = (0.3, 0.45, 0.62)
"""Lightness of the colours after the palette, three of each hue."""
_GOLDEN = 0.618034
"""Fraction of a turn between two hues: any number of them is spread evenly."""
_LIGHTEST = 0.9
_POINT = 1 / 72

T = TypeVar("T")


def new_figure(width: float, height: float, title: str | None = None) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    if title is not None:
        figure.suptitle(title, fontsize=TITLE, color=INK, x=0.5, y=1.0 - 0.12 / height, va="top")
    return figure


def save_figure(path: Path, draw: "Callable[[], Figure | None]", *, dpi: int) -> bool:
    """Draw a figure, write it in one step, and return whether there was something to draw.

    It has matplotlib's default style: a user's matplotlibrc may name fonts or TeX that are missing.

    Raises:
        RunError: If it cannot be drawn or written, naming the picture.
    """
    try:
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            figure = draw()
            if figure is None:
                return False
            write_atomically(path, partial(figure.savefig, format=path.suffix.removeprefix("."), dpi=dpi))
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunError(
            f"the picture {path} is missing ({reason}); repair matplotlib or make room", code="MIM-N001"
        ) from error
    return True


def quiet_axes(axes: "Axes", *, x: str = "", y: str = "", title: str) -> None:
    """Label axes and take away what carries no data."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.set_title(title, fontsize=LABEL, color=INK, loc="left")
    axes.tick_params(labelsize=TICK, colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
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
    """Return the colour of the arm at an index: no two arms have the same one."""
    if index < len(COLORS):
        return COLORS[index]
    turn, level = divmod(index - len(COLORS), len(_LEVELS))
    rgb = colorsys.hls_to_rgb(_GOLDEN * turn % 1.0, _LEVELS[level], 0.75)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def line_style(index: int) -> str:
    """Return the line style of the arm at an index; it changes after as many arms as the palette has."""
    return LINES[index // len(COLORS) % len(LINES)]


def depth_color(index: int, count: int) -> "tuple[float, float, float, float]":
    """Return the colour of a layer among `count`, dark to light with depth."""
    from matplotlib import colormaps

    return colormaps["viridis"](_LIGHTEST * index / max(count - 1, 1))


def marker(index: int) -> str:
    """Return the marker of the arm at an index."""
    return MARKERS[(index + index // len(COLORS)) % len(MARKERS)]


def picture_axes(figure: "Figure") -> "Axes":
    """Return axes over a whole figure, in inches, for pictures: axes for each cost many times the drawing."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, width), ylim=(0.0, height))
    axes.set_axis_off()
    axes.autoscale(enable=False)
    return axes


def draw_picture(axes: "Axes", values: Array, box: Box, limit: float, *, title: str) -> Box:
    """Draw values on `picture_axes`, as large as fits at the upper left of a box, below a title.

    Colours are symmetric about zero, up to the limit; boxes are (left, bottom, width, height).

    Returns:
        The box of the picture.
    """
    left, bottom, wide, tall = box
    rows, columns = values.shape
    side = min(wide / columns, tall / rows)
    wide, top = side * columns, bottom + tall
    bottom = top - side * rows
    _draw_image(axes, values, (left, bottom, wide, top - bottom), limit)
    axes.text(left, top + 6 * _POINT, title, fontsize=LABEL, color=INK)
    return left, bottom, wide, top - bottom


def draw_color_bar(axes: "Axes", box: Box, limit: float, *, digits: int) -> None:
    """Draw the bar of colours symmetric about zero on `picture_axes`, without a frame."""
    left, bottom, wide, tall = box
    _draw_image(axes, np.linspace(1.0, -1.0, 256)[:, None], box, 1.0)
    right, levels = left + wide, [bottom, bottom + tall / 2, bottom + tall]
    axes.hlines(levels, right, right + 3.5 * _POINT, color="black", linewidth=0.8)
    for level, text in zip(levels, (f"−{limit:.{digits}g}", "0", f"{limit:.{digits}g}"), strict=True):
        axes.text(right + 7 * _POINT, level, text, fontsize=TICK, color=INK, va="center_baseline")


def _draw_image(axes: "Axes", values: Array, box: Box, limit: float) -> None:
    left, bottom, wide, tall = box
    axes.imshow(
        values,
        cmap=DIVERGING,
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
        extent=(left, left + wide, bottom, bottom + tall),
        aspect="auto",
    )


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
