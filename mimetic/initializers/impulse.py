"""Queries and keys that make each head look at one neighbour of a token, in closed form.

Zheng, Li and Lucey, *Structured Initialization for Vision Transformers*, arXiv 2505.19985, as their code
has it: logits T = 1000·H + 3·Z·[H = 0] with H the impulse matrix of an offset and Z truncated normal
(std 0.6, cut at ±2), pulled back through the positions P by the pseudo-inverse cut at the head's rank,
A = P⁺·T·P⁺ᵀ, and split by singular values. Offsets go round the 3×3 window in a fixed order.
"""

import torch
from torch import Generator, Tensor, nn

from mimetic.initializers.factors import balanced

OFFSETS = ((0, 0), (-1, 0), (0, 1), (0, -1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Row and column of the neighbour that head i mod 9 looks at."""

HEIGHT, NOISE, NOISE_STD = 1000.0, 3.0, 0.6


def impulse_matrix(grid: tuple[int, int], offset: tuple[int, int]) -> Tensor:
    """Return H (N, N): one where the column's token is the row's neighbour, rows outside the grid zero.

    The number of ones is (rows − |m|)·(columns − |n|).
    """
    shifts = [
        torch.diag(torch.ones(max(side - abs(step), 0), dtype=torch.float64), step)
        if abs(step) < side
        else torch.zeros(side, side, dtype=torch.float64)
        for side, step in zip(grid, offset, strict=True)
    ]
    return torch.kron(*shifts)


def impulse_logits(grid: tuple[int, int], offset: tuple[int, int], stream: Generator) -> Tensor:
    """Return the target logits T (N, N) of one head."""
    impulse_NN = impulse_matrix(grid, offset)
    noise_NN = torch.empty_like(impulse_NN)
    nn.init.trunc_normal_(noise_NN, std=NOISE_STD, generator=stream)
    return HEIGHT * impulse_NN + NOISE * noise_NN * (impulse_NN == 0)


def principal(positions_ND: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return P = U·diag(s)·Vᵀ cut at a rank: U (N, k), s (k,), Vᵀ (k, d); fewer where P has fewer.

    Args:
        positions_ND: What the tokens are told apart by: the position table after the layer norm.
        rank: Width of the head.
    """
    left_NK, values_K, right_KD = torch.linalg.svd(positions_ND, full_matrices=False)
    keep = min(rank, int((values_K > values_K[0] * 1e-10).sum()))
    return left_NK[:, :keep], values_K[:keep], right_KD[:keep]


def impulse_factors(
    basis: tuple[Tensor, Tensor, Tensor], logits_NN: Tensor, *, rank: int, norm: float
) -> tuple[Tensor, Tensor]:
    """Return W_Q and W_K (d, k) of one head, each of the given Frobenius norm.

    The pulled-back map P⁺·T·P⁺ᵀ is V·C·Vᵀ for a core C = diag(1/s)·Uᵀ·T·U·diag(1/s) of (k, k), so one
    small decomposition does.

    Args:
        basis: `principal` of the positions.
        logits_NN: The target T.
        rank: Width of the head.
        norm: Frobenius norm of the results.
    """
    _, _, right_KD = basis
    query_KR, key_RK = balanced(_core(basis, logits_NN), rank)
    query_DR, key_DR = right_KD.T @ query_KR, right_KD.T @ key_RK.T
    return norm * query_DR / query_DR.norm(), norm * key_DR / key_DR.norm()


def pulled_back(basis: tuple[Tensor, Tensor, Tensor], logits_NN: Tensor) -> Tensor:
    """Return A = P⁺·T·P⁺ᵀ (d, d), of which `impulse_factors` are the split, up to a factor."""
    _, _, right_KD = basis
    return right_KD.T @ _core(basis, logits_NN) @ right_KD


def _core(basis: tuple[Tensor, Tensor, Tensor], logits_NN: Tensor) -> Tensor:
    left_NK, values_K, _ = basis
    return (left_NK.T @ logits_NN @ left_NK) / (values_K[:, None] * values_K)
