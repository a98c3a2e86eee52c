"""The filters of a few layers, side by side, red above zero and blue below.

Shapes: O output channels, I input channels (1 where depthwise), H rows, W columns, N filters.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from mimetic.analysis.mosaic import mosaic, spatial_filters, symmetric_limit
from mimetic.analysis.style import Array, Box, draw_color_bar, draw_picture, new_figure, picture_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 64
"""How many filters of a layer are drawn."""
_SIDE = 3.6
"""Inches, small: MLflow shows pictures in tiles of 256 pixels."""


def filters_figure(weights: Mapping[str, ArrayLike], *, title: str = "Filters") -> "Figure":
    """Return a figure, as square as the filters allow, with a strip of up to 64 filters for each layer.

    Each layer has a separate colour range, symmetric about zero: shapes can be compared where scales differ.
    Its bound is beside the strip; values beyond it (0.1 %) are clipped.

    `weights` is layer → weight (O, I, H, W).
    """
    if not weights:
        raise ValueError("no layer to draw")
    filters = {layer: spatial_filters(weight) for layer, weight in weights.items()}
    drawn = sum(min(len(filters_NHW), MOST) for filters_NHW in filters.values())
    columns = min(math.ceil(math.sqrt(drawn)), MOST)
    strips = {layer: mosaic(f[:MOST], columns=columns) for layer, f in filters.items()}
    width, head, between = _SIDE + 0.75, 0.4, 0.34
    heights = [min(_SIDE * strip.shape[0] / strip.shape[1], _SIDE) for strip in strips.values()]
    height = head + sum(heights) + between * len(heights)
    figure = new_figure(width, height, title)
    axes, top = picture_axes(figure), height - head
    for (layer, strip), tall in zip(strips.items(), heights, strict=True):
        top -= between * 0.75
        _strip(axes, (0.1, top - tall, _SIDE, tall), strip, filters[layer], layer)
        top -= tall + between * 0.25
    return figure


def _strip(axes: "Axes", box: Box, strip: Array, filters_NHW: Array, layer: str) -> None:
    left, bottom, wide, tall = box
    limit = symmetric_limit(filters_NHW)
    count, rows, columns = filters_NHW.shape
    drawn = min(count, MOST)
    many = f"{drawn}/{count}" if drawn < count else f"{count}"
    draw_picture(axes, strip, box, limit, title=f"{layer}  {many} of {rows}×{columns}")
    draw_color_bar(axes, (left + wide + 0.08, bottom, 0.1, tall), limit, digits=1)
