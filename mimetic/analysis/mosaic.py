"""Lay out many small pictures as one array, with a gap of one pixel between them.

Shapes: N pictures, H and W their sides.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mimetic.analysis.style import DIVERGING, TICK, Array, bare_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spatial_filters(weight: ArrayLike) -> Array:
    """Return the filters of a convolution (O, I, H, W), or any stack (…, H, W), as (N, H, W).

    Raises:
        ValueError: If the weight has no two spatial dimensions.
    """
    values = np.asarray(weight, dtype=np.float64)
    if values.ndim < 3 or 0 in values.shape:  # noqa: PLR2004
        raise ValueError(f"a weight of shape {values.shape} has no spatial filters")
    return values.reshape(-1, *values.shape[-2:])


def mosaic(pictures_NHW: Array, *, columns: int) -> Array:
    """Return pictures laid out row by row, NaN in the gaps and in places left over."""
    count, height, width = pictures_NHW.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    laid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, picture_HW in enumerate(pictures_NHW):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        laid[top : top + height, left : left + width] = picture_HW
    return laid


def symmetric_limit(values: Array, *, quantile: float = 0.999) -> float:
    """Return the bound of a colour range symmetric about zero that clips few values; never zero."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, quantile)) if finite.size else 0.0
    return limit if limit > 0.0 else 1.0


def draw_strip(axes: "Axes", filters: ArrayLike, *, columns: int, title: str) -> None:
    """Draw filters in one row, each scaled by its largest magnitude; places after the last stay empty.

    Filters are (N, H, W), or (N, H, W, 3) in color. The row has `columns` places, so strips of several layers
    share their scale.
    """
    drawn = np.asarray(filters, dtype=np.float64)[:columns]
    largest = np.abs(drawn).max(axis=tuple(range(1, drawn.ndim)), keepdims=True)
    blank = np.full((columns - len(drawn), *drawn.shape[1:]), np.nan)
    scaled = np.concatenate([drawn / np.where(largest > 0.0, largest, 1.0), blank])
    if drawn.ndim == 4:  # noqa: PLR2004 - in color
        channels = [mosaic(0.5 + 0.5 * scaled[..., channel], columns=columns) for channel in range(3)]
        axes.imshow(np.nan_to_num(np.stack(channels, axis=-1), nan=1.0), interpolation="nearest")
    else:
        row = mosaic(scaled, columns=columns)
        axes.imshow(row, cmap=DIVERGING, vmin=-1.0, vmax=1.0, interpolation="nearest")
    axes.set_anchor("NW")
    bare_axes(axes, title=title)
    axes.title.set_fontsize(TICK)
