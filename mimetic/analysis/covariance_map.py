"""The covariance over a filter's pixels: each as a picture of blocks, and the spectra of all.

Block (i, j) of a picture is the covariance of pixel (i, j) with all others, laid out where that pixel
is in the filter (Trockman, Willmott, Kolter 2023, arXiv 2210.03651).

Shapes: H rows and W columns of a filter, P = H·W its pixels, N filters.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mimetic.analysis.mosaic import spatial_filters, symmetric_limit
from mimetic.analysis.style import (
    Array,
    Box,
    color,
    draw_color_bar,
    draw_picture,
    new_figure,
    picture_axes,
    quiet_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE, _WIDE, _TALL, _HEAD = 1.6, 2.45, 2.15, 0.35
"""Inches: side of a picture, width and height of its cell, space for the title.

Small: MLflow shows pictures in tiles of 256 pixels."""
_LONGEST = 28
"""Characters of a name for which a cell has room."""

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
    """Return a figure, as square as it can be: the blocks of each covariance, then the spectra of all.

    `covariances` is name → (matrix (P, P), kernel size (H, W)); a name has the colour of its spectrum.

    Raises:
        ValueError: If a matrix does not fit its kernel size, or there is none.
    """
    from matplotlib.ticker import MaxNLocator

    if not covariances:
        raise ValueError("no covariance to draw")
    cells = len(covariances) + 1
    columns = math.ceil(math.sqrt(cells))
    width, height = columns * _WIDE, _HEAD + math.ceil(cells / columns) * _TALL
    figure = new_figure(width, height, title)
    boxes = [
        (i % columns * _WIDE + 0.12, height - _HEAD - i // columns * _TALL - 0.3 - _SIDE, _SIDE, _SIDE)
        for i in range(cells)
    ]
    pictures = picture_axes(figure)
    left, bottom, wide, tall = boxes[-1]
    panel = ((left + 0.35) / width, bottom / height, (wide - 0.05) / width, tall / height)
    spectra = figure.add_axes(panel)
    for index, (name, (matrix, kernel)) in enumerate(covariances.items()):
        matrix_PP = np.asarray(matrix, dtype=np.float64)
        if len(kernel) != 2 or matrix_PP.shape != (np.prod(kernel), np.prod(kernel)):  # noqa: PLR2004
            raise ValueError(f"{name}: a matrix {matrix_PP.shape} is no covariance over {kernel} pixels")
        short = name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
        _blocks(pictures, boxes[index], short, matrix_PP, (kernel[0], kernel[1]))
        pictures.texts[4 * index].set_color(color(index))
        values = np.linalg.eigvalsh(matrix_PP)[::-1].astype(np.float64)
        _spectrum(spectra, values, color(index))
    quiet_axes(spectra, title="eigenvalue / largest")
    spectra.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    spectra.set_ylim(min(spectra.get_ylim()[0], 0.05), 2.0)
    spectra.minorticks_off()
    return figure


def blocks(matrix_PP: Array, kernel: tuple[int, int]) -> Array:
    """Return the covariance as H×W blocks of H×W: entry (i·H + l, j·W + m) is Cov[(i, j), (l, m)]."""
    height, width = kernel
    map_HWHW = matrix_PP.reshape(height, width, height, width)
    return map_HWHW.transpose(0, 2, 1, 3).reshape(height * height, width * width)


def _blocks(axes: "Axes", box: Box, name: str, matrix_PP: Array, kernel: tuple[int, int]) -> None:
    """Draw a picture with a title and the three texts of its colour bar."""
    limit = symmetric_limit(matrix_PP, quantile=1.0)
    left, bottom, wide, tall = draw_picture(axes, blocks(matrix_PP, kernel), box, limit, title=name)
    height, width = kernel
    rows = bottom + tall * np.arange(1, height) / height
    columns = left + wide * np.arange(1, width) / width
    axes.hlines(rows, left, left + wide, color="white", linewidth=1.2)
    axes.vlines(columns, bottom, bottom + tall, color="white", linewidth=1.2)
    draw_color_bar(axes, (left + wide + 0.08, bottom, 0.09, tall), limit, digits=1)


def _spectrum(axes: "Axes", values: Array, ink: str) -> None:
    """Draw eigenvalues over the largest; those at rounding error or below stay out."""
    relative = values / (float(values[0]) if values[0] > 0.0 else 1.0)
    drawn = relative > _FLOOR
    order = np.arange(1, len(values) + 1)
    axes.semilogy(order[drawn], relative[drawn], color=ink, marker=".", markersize=4, linewidth=1.2)
