"""NFM and AGOP as pictures: their leading eigen-filters, and where in an image they look (arXiv 2309.00570).

Shapes: N pictures, H rows, W columns; a last axis of three is colour.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mimetic.analysis.mosaic import Array, mosaic
from mimetic.analysis.style import DIVERGING, INK, LABEL, TICK, bare_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 8
"""Eigen-filters drawn of each matrix."""

_COLORED = 4
_BRIGHTEST = 0.995
_MAP = "inferno"


def eigenfilters_figure(
    layers: Mapping[str, tuple[ArrayLike, ArrayLike]], *, title: str = "Leading eigenvectors"
) -> "Figure":
    """Return a figure with the leading eigen-filters of each layer's NFM beside those of its AGOP.

    Args:
        layers: Layer → filters of NFM and of AGOP, each (N, H, W), or (N, H, W, 3) where it sees colours.
        title: Title of the figure.

    Raises:
        ValueError: If there is no layer.
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
            _strip(axes, np.asarray(filters, dtype=np.float64), name if column == 0 else "")
    return figure


def saliency_figure(
    pictures: Sequence[ArrayLike],
    layers: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str | None = None,
) -> "Figure":
    """Return a figure with a row for each image: the image, then the maps of NFM and AGOP at each layer.

    Each map has a brightness range of its own, from zero to its brightest half percent.

    Args:
        pictures: Images (H, W, 3) or (H, W) in [0, 1].
        layers: Layer → maps (N, H, W) of NFM and AGOP, one for each image.
        title: Title of the figure.

    Raises:
        ValueError: If there is no image or no layer.
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
        shown = np.asarray(picture)
        box(row, 0).imshow(shown, cmap="gray", vmin=0.0, vmax=1.0)
        for index, (name, pair) in enumerate(layers.items()):
            for which, maps in enumerate(pair):
                axes = box(row, 1 + 2 * index + which)
                _bright(axes, np.asarray(maps, dtype=np.float64)[row])
                if row == 0:
                    above = f"{name}\nNFM" if which == 0 else "\nAGOP"
                    axes.set_title(above, fontsize=TICK, color=INK, loc="left")
    return figure


def _strip(axes: "Axes", filters: Array, name: str) -> None:
    kept = filters[:COLUMNS]
    scale = np.abs(kept).max(axis=tuple(range(1, kept.ndim)), keepdims=True)
    scaled = kept / np.where(scale > 0.0, scale, 1.0)
    if scaled.ndim == _COLORED:
        channels = [_padded(0.5 + 0.5 * scaled[..., channel]) for channel in range(3)]
        axes.imshow(np.nan_to_num(np.stack(channels, axis=-1), nan=1.0), interpolation="nearest")
    else:
        axes.imshow(_padded(scaled), cmap=DIVERGING, vmin=-1.0, vmax=1.0, interpolation="nearest")
    axes.set_anchor("NW")
    bare_axes(axes, title=name)
    axes.title.set_fontsize(TICK)


def _padded(filters_NHW: Array) -> Array:
    """Return a row of always as many places, so that strips of layers share their scale."""
    missing = COLUMNS - len(filters_NHW)
    blank_NHW = np.full((missing, *filters_NHW.shape[1:]), np.nan)
    return mosaic(np.concatenate([filters_NHW, blank_NHW]), columns=COLUMNS)


def _bright(axes: "Axes", map_HW: Array) -> None:
    brightest = float(np.quantile(map_HW, _BRIGHTEST))
    axes.imshow(
        map_HW, cmap=_MAP, vmin=0.0, vmax=brightest if brightest > 0.0 else 1.0, interpolation="nearest"
    )
