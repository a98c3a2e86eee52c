"""The covariance over a filter's pixels: as a picture of blocks, its leading directions, its spectrum.

Block (i, j) of the picture is the covariance of pixel (i, j) with all others, laid out where that pixel
is in the filter (Trockman, Willmott, Kolter 2023, arXiv 2210.03651).

Shapes: H rows and W columns of a filter, P = H·W its pixels, N filters.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mimetic.analysis.mosaic import mosaic, spatial_filters, symmetric_limit
from mimetic.analysis.style import (
    COLORS,
    Array,
    Box,
    draw_color_bar,
    draw_picture,
    new_figure,
    picture_axes,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEADING = 9
"""How many eigenvectors are drawn."""

_FLOOR = 1e-8


def covariance_figure(weights: Mapping[str, ArrayLike], *, title: str = "Covariance over pixels") -> "Figure":
    """Return a figure with the second moment of each layer's filters, Σ = (1/N) Σₙ fₙ fₙᵀ over pixels.

    `weights` is layer → weight (O, I, H, W); filters of all channels count alike.
    """
    maps = {}
    for layer, weight in weights.items():
        filters_NHW = spatial_filters(weight)
        flat_NP = filters_NHW.reshape(len(filters_NHW), -1)
        maps[layer] = (flat_NP.T @ flat_NP / len(flat_NP), filters_NHW.shape[1:])
    return covariance_maps(maps, title=title)


def covariance_maps(
    covariances: Mapping[str, tuple[ArrayLike, tuple[int, ...]]], *, title: str = "Covariance over pixels"
) -> "Figure":
    """Return a figure with one row for each covariance: blocks, leading eigenvectors, spectrum.

    `covariances` is name → (matrix (P, P), kernel size (H, W)).

    Raises:
        ValueError: If a matrix does not fit its kernel size, or there is none.
    """
    if not covariances:
        raise ValueError("no covariance to draw")
    width, row, head, foot = 9.6, 3.0, 0.5, 0.45
    height = head + row * len(covariances) + foot
    figure = new_figure(width, height, title)
    pictures = picture_axes(figure)
    for index, (name, (matrix, kernel)) in enumerate(covariances.items()):
        matrix_PP = np.asarray(matrix, dtype=np.float64)
        if len(kernel) != 2 or matrix_PP.shape != (np.prod(kernel), np.prod(kernel)):  # noqa: PLR2004
            raise ValueError(f"{name}: a matrix {matrix_PP.shape} is no covariance over {kernel} pixels")
        bottom, tall = foot + row * (len(covariances) - 1 - index) + 0.3, row - 0.62
        values, vectors = np.linalg.eigh(matrix_PP)
        values, vectors_RP = values[::-1], vectors.T[::-1]
        _blocks(pictures, (0.2, bottom, 2.75, tall), name, matrix_PP, (kernel[0], kernel[1]))
        _eigenvectors(pictures, (3.6, bottom, 2.4, tall), vectors_RP, values, (kernel[0], kernel[1]))
        panel = (7.1 / width, bottom / height, 2.3 / width, tall / height)
        _spectrum_panel(figure.add_axes(panel), values)
    return figure


def blocks(matrix_PP: Array, kernel: tuple[int, int]) -> Array:
    """Return the covariance as H×W blocks of H×W: entry (i·H + l, j·W + m) is Cov[(i, j), (l, m)]."""
    height, width = kernel
    map_HWHW = matrix_PP.reshape(height, width, height, width)
    return map_HWHW.transpose(0, 2, 1, 3).reshape(height * height, width * width)


def _blocks(axes: "Axes", box: Box, name: str, matrix_PP: Array, kernel: tuple[int, int]) -> None:
    limit = symmetric_limit(matrix_PP, quantile=1.0)
    left, bottom, wide, tall = draw_picture(axes, blocks(matrix_PP, kernel), box, limit, title=name)
    height, width = kernel
    rows = bottom + tall * np.arange(1, height) / height
    columns = left + wide * np.arange(1, width) / width
    axes.hlines(rows, left, left + wide, color="white", linewidth=1.2)
    axes.vlines(columns, bottom, bottom + tall, color="white", linewidth=1.2)
    draw_color_bar(axes, (left + wide + 0.08, box[1], 0.09, box[3]), limit, digits=1)


def _eigenvectors(axes: "Axes", box: Box, vectors_RP: Array, values: Array, kernel: tuple[int, int]) -> None:
    leading_NHW = vectors_RP[:LEADING].reshape(-1, *kernel)
    scaled_NHW = leading_NHW / np.abs(leading_NHW).max(axis=(1, 2), keepdims=True)
    trace = float(values.sum())
    share = f", {values[:LEADING].sum() / trace:.0%} of trace" if trace > 0.0 else ""
    draw_picture(axes, mosaic(scaled_NHW, columns=3), box, 1.0, title=f"leading {len(leading_NHW)}{share}")


def _spectrum_panel(axes: "Axes", values: Array) -> None:
    """Draw eigenvalues over their share of the largest; those at rounding error or below stay out."""
    largest = float(values[0]) if values[0] > 0.0 else 1.0
    relative = values / largest
    order = np.arange(1, len(values) + 1)
    drawn = relative > _FLOOR
    axes.semilogy(order[drawn], relative[drawn], color=COLORS[0], marker=".", markersize=4, linewidth=1.2)
    axes.set_xlim(0, len(values) + 1)
    lowest = float(relative[drawn].min()) if drawn.any() else 0.1
    axes.set_ylim(min(lowest, 0.1) / 2, 2.0)
    quiet_axes(axes, x="index", title=f"eigenvalue / largest ({largest:.2g})")
    axes.minorticks_off()
