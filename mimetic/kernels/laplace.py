"""Laplace kernel of a Mahalanobis distance, and the AGOP of its predictor (arXiv 2212.13881).

    K_M(x, z) = exp(−‖x − z‖_M / L),  ‖v‖_M = √(vᵀMv)
    ∇f_o(x) = Σ_j α_jo·K_M(x, x_j)·M(x_j − x) / (L·‖x − x_j‖_M)          (terms at distance zero omitted)

Everything is float64, because distances are differences of squares. Rows are processed in blocks, which
bounds memory beyond K itself.

Shapes: N, M points, D coordinates, K outputs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mimetic.kernels.patches import tiles

BLOCK_ELEMENTS = 2**22
"""Kernel entries computed at once."""

_SAME = 1e-13
"""Squared distance, relative to the squared lengths, below which two points are considered equal."""


def laplace(points_ND: Tensor, others_MD: Tensor, metric_DD: Tensor | None, bandwidth: float) -> Tensor:
    """Return K_M of every pair, (N, M).

    Args:
        points_ND: Points, float64.
        others_MD: Other points.
        metric_DD: The matrix M; the identity if None.
        bandwidth: The length L.
    """
    rows = [
        torch.exp(distance_NM / -bandwidth) for _, distance_NM in _blocks(points_ND, others_MD, metric_DD)
    ]
    return torch.cat(rows)


def laplace_agop(
    points_ND: Tensor,
    others_MD: Tensor,
    alpha_MK: Tensor,
    metric_DD: Tensor | None,
    bandwidth: float,
    *,
    centered: bool = False,
) -> Tensor:
    """Return (1/N) Σ_x Σ_o ∇f_o(x) ∇f_o(x)ᵀ, (D, D).

    Args:
        points_ND: Points at which gradients are taken, float64.
        others_MD: Points the predictor was fitted on.
        alpha_MK: Its coefficients.
        metric_DD: The matrix M of its kernel; the identity if None.
        bandwidth: The length L of its kernel.
        centered: Whether to subtract the mean gradient of each output.
    """
    outputs, size = alpha_MK.shape[1], points_ND.shape[1]
    total_DD = points_ND.new_zeros(size, size)
    sums_KD = points_ND.new_zeros(outputs, size)
    for (start, stop), distance_NM in _blocks(points_ND, others_MD, metric_DD):
        weight_NM = torch.exp(distance_NM / -bandwidth) / (bandwidth * distance_NM)
        weight_NM.masked_fill_(distance_NM == 0.0, 0.0)
        pull_NK = weight_NM @ alpha_MK
        for o in range(outputs):
            # M is applied once at the end, on both sides.
            towards_ND = (weight_NM * alpha_MK[:, o]) @ others_MD
            towards_ND -= pull_NK[:, o : o + 1] * points_ND[start:stop]
            total_DD += towards_ND.T @ towards_ND
            sums_KD[o] += towards_ND.sum(dim=0)
    if centered:
        total_DD -= sums_KD.T @ sums_KD / len(points_ND)
    if metric_DD is not None:
        total_DD = metric_DD @ total_DD @ metric_DD
    return total_DD / len(points_ND)


def _blocks(
    points_ND: Tensor, others_MD: Tensor, metric_DD: Tensor | None
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Yield the bounds of blocks of points and their distances to the others; equal points have zero."""
    turned_MD = others_MD if metric_DD is None else others_MD @ metric_DD
    squares_M = (turned_MD * others_MD).sum(dim=1)
    for start, stop in tiles(len(points_ND), max(1, BLOCK_ELEMENTS // len(others_MD))):
        part_ND = points_ND[start:stop]
        turned_ND = part_ND if metric_DD is None else part_ND @ metric_DD
        lengths_NM = (turned_ND * part_ND).sum(dim=1)[:, None] + squares_M
        squared_NM = lengths_NM - 2.0 * part_ND @ turned_MD.T
        squared_NM.masked_fill_(squared_NM <= _SAME * lengths_NM, 0.0)
        yield (start, stop), squared_NM.sqrt_()
