"""Many small pictures laid out as one array, with a gap of one pixel between them.

Shapes: N pictures, H and W their sides.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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
