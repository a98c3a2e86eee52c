"""The filters of a few layers, side by side, red above zero and blue below.

Shapes: O output channels, I input channels (1 where depthwise), H rows, W columns, N filters.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from mimetic.analysis.mosaic import mosaic, spatial_filters, symmetric_limit
from mimetic.analysis.style import Array, Box, draw_color_bar, draw_picture, new_figure, picture_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS, _ROWS = 16, 4


def filters_figure(weights: Mapping[str, ArrayLike], *, title: str = "Filters") -> "Figure":
    """Return a figure with a strip of up to 64 filters for each layer.

    Each layer has a colour range of its own, symmetric about zero, so that shapes can be compared where
    scales differ; its bound is beside the strip. Values beyond it (0.1 %) are clipped.

    `weights` is layer → weight (O, I, H, W).
    """
    if not weights:
        raise ValueError("no layer to draw")
    filters = {layer: spatial_filters(weight) for layer, weight in weights.items()}
    strips = {layer: mosaic(f[: _COLUMNS * _ROWS], columns=_COLUMNS) for layer, f in filters.items()}
    width, strip_width, head, between = 9.0, 8.1, 0.55, 0.42
    heights = [strip_width * strip.shape[0] / strip.shape[1] for strip in strips.values()]
    heights = [min(height, 6.0) for height in heights]
    height = head + sum(heights) + between * len(heights)
    figure = new_figure(width, height, title)
    axes, top = picture_axes(figure), height - head
    for (layer, strip), tall in zip(strips.items(), heights, strict=True):
        top -= between * 0.6
        _strip(axes, (0.15, top - tall, strip_width, tall), strip, filters[layer], layer)
        top -= tall + between * 0.4
    return figure


def _strip(axes: "Axes", box: Box, strip: Array, filters_NHW: Array, layer: str) -> None:
    left, bottom, wide, tall = box
    limit = symmetric_limit(filters_NHW)
    count, rows, columns = filters_NHW.shape
    drawn = min(count, _COLUMNS * _ROWS)
    many = f"{drawn} of {count} filters" if drawn < count else f"{count} filters"
    draw_picture(axes, strip, box, limit, title=f"{layer}   {many} of {rows}×{columns}")
    draw_color_bar(axes, (left + wide + 0.11, bottom, 0.11, tall), limit, digits=2)
