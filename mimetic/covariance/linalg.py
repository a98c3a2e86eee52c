"""Linear algebra whose bits do not depend on the number of threads, see `mimetic.threads`."""

from typing import Literal

import torch
from torch import Tensor

from mimetic.threads import one_thread

Repair = Literal["abs", "clip"]


def multiply(left_NR: Tensor, right_RD: Tensor) -> Tensor:
    """Return the matrix product with a fixed order of summation."""
    with one_thread():
        return left_NR @ right_RD


def eigh(matrix_DD: Tensor) -> tuple[Tensor, Tensor]:
    """Return ascending eigenvalues (d,) and eigenvectors (d, d) in columns of a symmetric matrix."""
    with one_thread():
        values_D, vectors_DD = torch.linalg.eigh(matrix_DD)
    return values_D, vectors_DD


def eigvalsh(matrix_DD: Tensor) -> Tensor:
    """Return ascending eigenvalues (d,) of a symmetric matrix."""
    with one_thread():
        values_D: Tensor = torch.linalg.eigvalsh(matrix_DD)
    return values_D


def repaired(values_D: Tensor, psd: Repair) -> Tensor:
    """Return eigenvalues made non-negative: absolute values as numpy samples, or negative ones zero."""
    return values_D.abs() if psd == "abs" else values_D.clamp(min=0.0)


def symmetric_root(matrix_DD: Tensor, *, psd: Repair = "clip") -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a symmetric matrix made PSD, and the eigenvalues as they were.

    V·diag(√|λ|)·Vᵀ for `abs`, V·diag(√max(λ, 0))·Vᵀ for `clip`. The root is unique, so it carries none
    of the eigenvectors' arbitrary signs.
    """
    values_D, vectors_DD = eigh(matrix_DD)
    root_DD = multiply(vectors_DD * repaired(values_D, psd).sqrt(), vectors_DD.T)
    return root_DD, values_D


def smaller_gram(factor_RD: Tensor) -> Tensor:
    """Return FFᵀ or FᵀF, whichever is smaller: both have the non-zero eigenvalues of Σ = FᵀF."""
    rows, columns = factor_RD.shape
    return multiply(factor_RD, factor_RD.T) if rows <= columns else multiply(factor_RD.T, factor_RD)


def compact(factor_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Return a factor of the same Σ = FᵀF with at most d rows, and the min(r, d) eigenvalues of Σ, ascending.

    The factor is F itself, or the symmetric root of FᵀF.
    """
    rows, columns = factor_RD.shape
    gram = smaller_gram(factor_RD)
    return (factor_RD, eigvalsh(gram)) if rows <= columns else symmetric_root(gram)
