"""Position tables of sines and cosines over the rows and columns of a grid, in the two usual layouts.

They are not interchangeable: timm's `build_sincos2d_pos_embed` is [sin y, sin x, cos y, cos x] with bands
T^(−b/n), Simple-ViT's [sin x, cos x, sin y, cos y] with bands T^(−b/(n−1)), n = D/4.
"""

from typing import Literal

import torch
from torch import Tensor

from mimetic.errors import UserError

Layout = Literal["timm", "simple"]


def width_problem(dim: int, layout: Layout) -> str | None:
    """Return why a width cannot be filled with sines and cosines of two coordinates; None if it can."""
    least = 8 if layout == "simple" else 4
    fits = dim % 4 == 0 and dim >= least
    return None if fits else f"need a width that is a multiple of 4, at least {least}, not {dim}"


def sincos2d(grid: tuple[int, int], dim: int, *, layout: Layout, temperature: float = 10000.0) -> Tensor:
    """Return the table (rows·columns, D) in float64, tokens row by row.

    Raises:
        UserError: If D is not a multiple of 4, or too small for the layout.
    """
    problem = width_problem(dim, layout)
    if problem is not None:
        raise UserError(f"sines and cosines {problem}", code="MIM-M050")
    bands = dim // 4
    last = bands - 1 if layout == "simple" else bands
    omega_B = temperature ** (-torch.arange(bands, dtype=torch.float64) / last)
    rows, columns = grid
    y_NB = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)[:, None] * omega_B
    x_NB = torch.arange(columns, dtype=torch.float64).repeat(rows)[:, None] * omega_B
    if layout == "timm":
        parts = (y_NB.sin(), x_NB.sin(), y_NB.cos(), x_NB.cos())
    else:
        parts = (x_NB.sin(), x_NB.cos(), y_NB.sin(), y_NB.cos())
    return torch.cat(parts, dim=1)
