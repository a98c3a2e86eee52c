"""Closed-form covariance of convolution filters, free of data and training.

"Understanding the Covariance Structure of Convolutional Filters", Trockman, Willmott, Kolter
(arXiv 2210.03651). The authors' repository is empty: the construction is from memory of the paper and
checked by two independent implementations of ours, not against theirs.

With z_p the Gaussian bump at pixel p, centered on the kernel's middle with peak 1, and z_{q-p} the bump
moved so that its peak sits on p,

    Σ[p, q] = ½ [ (z_p + z_q)·z_{q-p} − z_p·z_q ].

The bump is a product over the axes, so kernels of one, two or three sides, square or not, are all the
same formula; a side of 1 contributes the factor 1.

Shapes: K one side of the kernel, D all pixels of the kernel in row-major order.
"""

import math
from functools import lru_cache, reduce

import torch
from torch import Tensor

from mimetic.covariance.config import ClosedFormFit, Convention, Padding
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.linalg import Repair, eigh, multiply, repaired, symmetric_root

_ROUNDING = 1e-12


def bump(side: int, width: float, *, convention: Convention = "variance") -> Tensor:
    """Return the un-normalized Gaussian bump along one axis, its peak 1 on pixel side//2.

    exp(−(i − c)²/(2·width)) where the width is a variance, exp(−(i − c)²/(2·width²)) where it is a
    standard deviation; width 0 is the limit, one on the peak and zero beside it.
    """
    distance_K = torch.arange(side, dtype=torch.float64) - side // 2
    variance = width if convention == "variance" else width * width
    if variance == 0.0:
        return (distance_K == 0.0).double()
    return torch.exp(-distance_K.square() / (2.0 * variance))


def closed_form_matrix(
    kernel_size: tuple[int, ...],
    width: float,
    *,
    padding: Padding = "wrap",
    convention: Convention = "variance",
) -> Tensor:
    """Return the closed-form matrix (d, d) in float64, symmetric but not PSD for sides of 5 and more.

    H = z_p·(z_{q-p} − ½·z_q) and Σ = ½(H + Hᵀ): a moving bump minus half the centered one, masked by the
    centered one, symmetrized.

    Args:
        kernel_size: Sides of the kernel.
        width: Width of the bump, at least 0.
        padding: What a bump moved over the border meets: the other side of the kernel, or zeros.
        convention: Whether the width is the bump's variance or its standard deviation.
    """
    sides = [bump(side, width, convention=convention) for side in kernel_size]
    centered_D = reduce(torch.kron, sides)
    moved_DD = reduce(torch.kron, [_moved(side_K, padding) for side_K in sides])
    masked_DD = centered_D[:, None] * (moved_DD - 0.5 * centered_D[None, :])
    return 0.5 * (masked_DD + masked_DD.T)


def fit_matrix(spec: ClosedFormFit, kernel_size: tuple[int, ...], width: float) -> Tensor:
    """Return the matrix of a width with its eigenvalues repaired, for a fit."""
    matrix_DD = closed_form_matrix(kernel_size, width, padding=spec.padding, convention=spec.convention)
    values_D, vectors_DD = eigh(matrix_DD)
    return multiply(vectors_DD * repaired(values_D, spec.psd), vectors_DD.T)


def _moved(bump_K: Tensor, padding: Padding) -> Tensor:
    """Return the matrix whose row i is the bump along one axis with its peak on pixel i."""
    side = len(bump_K)
    pixel_K = torch.arange(side)
    offset_KK = pixel_K[None, :] - pixel_K[:, None] + side // 2
    moved_KK = bump_K[offset_KK % side]
    if padding == "wrap":
        return moved_KK
    return torch.where((offset_KK >= 0) & (offset_KK < side), moved_KK, 0.0)


@lru_cache(maxsize=4096)
def closed_form(
    kernel_size: tuple[int, ...],
    width: float,
    *,
    padding: Padding = "wrap",
    convention: Convention = "variance",
    psd: Repair = "abs",
) -> Covariance:
    """Return the closed-form covariance of one input channel's filter, with its symmetric root as factor.

    Cached: layers with equal arguments share one factor.
    """
    matrix_DD = closed_form_matrix(kernel_size, width, padding=padding, convention=convention)
    root_DD, values_D = symmetric_root(matrix_DD, psd=psd)
    about = Provenance(
        "closed_form",
        rank=int((repaired(values_D, psd) > _ROUNDING * values_D[-1]).sum()),
        smallest_eigenvalue=float(values_D[0]),
        largest_eigenvalue=float(values_D[-1]),
        repair=_repair(values_D, psd),
    )
    return Covariance(root_DD, PatchGeometry(1, kernel_size), about)


def _repair(values_D: Tensor, psd: Repair) -> str | None:
    """Describe the repair of the eigenvalues; None where only rounding was negative."""
    negative = values_D[values_D < -_ROUNDING * values_D[-1]]
    if len(negative) == 0:
        return None
    share = -float(negative.sum()) / math.fsum(values_D.tolist())
    verb = "taken by absolute value" if psd == "abs" else "set to zero"
    return f"{len(negative)} of {len(values_D)} eigenvalues were negative ({share:.1%} of the trace), {verb}"
