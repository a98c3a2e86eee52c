"""Balanced factors of a product: L·R ≈ A with LᵀL = RRᵀ, through the singular value decomposition.

With A = U·diag(s)·Vᵀ the factors are L = U·diag(√s) and R = diag(√s)·Vᵀ (arXiv 2305.09828). Singular
vectors have arbitrary signs; here the largest entry of each right one is positive.
"""

import torch
from torch import Tensor


def balanced(target_MN: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return L (M, r) and R (r, N) whose product is the best approximation of rank r.

    A rank beyond the smaller side of A has more components than A: they are repeated in turn, each of n
    copies with √(s/n), so that no row or column is dead and the product is A itself.

    Args:
        target_MN: A, in float64.
        rank: r.
    """
    full = min(target_MN.shape)
    left_MK, values_K, right_KN = _leading(target_MN, min(rank, full))
    turn_R = torch.arange(rank) % full
    copies_R = torch.bincount(turn_R, minlength=full)[turn_R]
    root_R = (values_K[turn_R] / copies_R).sqrt()
    return left_MK[:, turn_R] * root_R, root_R[:, None] * right_KN[turn_R]


def _leading(target_MN: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular vectors (M, r) and (r, N) and their values (r,), signs fixed.

    Half of the components or fewer come from the smaller Gram matrix, which takes half the time; its small
    singular values are not accurate, its large ones are.
    """
    rows, columns = target_MN.shape
    if 2 * rank <= columns <= rows:
        squares_N, vectors_NN = torch.linalg.eigh(target_MN.T @ target_MN)
        values_R = squares_N[-rank:].flip(0).clamp(min=0.0).sqrt()
        right_RN = vectors_NN[:, -rank:].flip(1).T
        left_MR = (target_MN @ right_RN.T) / values_R.clamp(min=torch.finfo(values_R.dtype).tiny)
    else:
        left_MK, values_K, right_KN = torch.linalg.svd(target_MN, full_matrices=False)
        left_MR, values_R, right_RN = left_MK[:, :rank], values_K[:rank], right_KN[:rank]
    top_R = right_RN.abs().argmax(1, keepdim=True)
    signs_R = right_RN.gather(1, top_R).squeeze(1).sign()
    return left_MR * signs_R, values_R, signs_R[:, None] * right_RN
