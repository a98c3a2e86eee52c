"""Algebra of covariances in factor form: mixtures, powers, likeness, distance.

Nothing here forms a d×d matrix where a factor has fewer than d rows. With factors A = FᵀF and B = GᵀG,
⟨A, B⟩ = ‖F·Gᵀ‖²_F, the sum of all entries of A is ‖F·1‖², and the singular values of A^½·B^½ are those of
F·Gᵀ.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mimetic.covariance.covariance import Covariance, Provenance, derived
from mimetic.covariance.linalg import eigh, multiply, smaller_gram
from mimetic.threads import one_thread

_NEGLIGIBLE = 1e-12


def mixed(covariances: Sequence[Covariance], weights: Sequence[float]) -> Covariance:
    """Return Σ_i w_i·Σ_i of covariances of one patch: the factors √w_i·F_i on top of each other."""
    pairs = list(zip(covariances, weights, strict=True))
    factor_RD = torch.cat([math.sqrt(weight) * cov.factor_RD for cov, weight in pairs])
    note = "mixed " + " + ".join(f"{weight:.4g}·{cov.provenance.source}" for cov, weight in pairs)
    return derived(_joined(covariances), factor_RD, covariances[0].patch, note=note)


def powered(cov: Covariance, power: float) -> Covariance:
    """Return Σ^p on its range: with K = FFᵀ, the factor K^((p−1)/2)·F, which carries no arbitrary signs.

    p = ½ is the square root of arXiv 2212.13881 and of the NFM study's AGOP. Directions whose eigenvalue
    is below 1e-12 of the largest count as absent, for negative powers too.
    """
    rows, columns = cov.factor_RD.shape
    values, vectors = eigh(smaller_gram(cov.factor_RD))
    present = values > _NEGLIGIBLE * values[-1]
    exponent = 0.5 * (power - 1.0) if rows <= columns else 0.5 * power
    raised = torch.where(present, values.clamp(min=torch.finfo(values.dtype).tiny), 1.0) ** exponent
    root = multiply(vectors * torch.where(present, raised, 0.0), vectors.T)
    factor_RD = multiply(root, cov.factor_RD) if rows <= columns else root
    return derived(cov, factor_RD, cov.patch, note=f"power {power:g}")


def eigenvectors(cov: Covariance) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (K,) of Σ, largest first, down to 1e-12 of it, and unit eigenvectors (K, d).

    With K = FFᵀ = U·Λ·Uᵀ they are Λ^-½·Uᵀ·F; their signs are arbitrary.
    """
    rows, columns = cov.factor_RD.shape
    values_K, vectors = (part.flip(-1) for part in eigh(smaller_gram(cov.factor_RD)))
    present = values_K > _NEGLIGIBLE * values_K[0].clamp(min=torch.finfo(values_K.dtype).tiny)
    values_K, vectors_KR = values_K[present], vectors.T[present]
    if rows > columns:
        return values_K, vectors_KR
    return values_K, multiply(vectors_KR, cov.factor_RD) / values_K.sqrt()[:, None]


def truncated(cov: Covariance, rank: int) -> Covariance:
    """Return the best approximation of Σ of a rank, its leading eigenvectors alone."""
    _, vectors = eigh(smaller_gram(cov.factor_RD))
    leading = vectors[:, -rank:]
    return filtered(cov, multiply(leading, leading.T), note=f"rank {rank}")


def filtered(cov: Covariance, matrix: Tensor, *, note: str) -> Covariance:
    """Return the covariance with the factor A·F or F·A, A a function of FFᵀ or FᵀF, whichever is smaller."""
    factor_RD, (rows, columns) = cov.factor_RD, cov.factor_RD.shape
    product_RD = multiply(matrix, factor_RD) if rows <= columns else multiply(factor_RD, matrix)
    return derived(cov, product_RD, cov.patch, note=note)


def cosine(left: Covariance, right: Covariance) -> float:
    """Return ⟨A, B⟩ / (‖A‖·‖B‖), the cosine of the flattened matrices; 0 where one is zero."""
    return _correlation(left, right, centered=False)


def correlation(left: Covariance, right: Covariance) -> float:
    """Return the Pearson correlation over all d² entries, the measure of arXiv 2309.00570.

    (⟨A, B⟩ − ΣA·ΣB/d²) / √((‖A‖² − (ΣA)²/d²)·(‖B‖² − (ΣB)²/d²)); 0 where a matrix is constant.
    """
    return _correlation(left, right, centered=True)


def _correlation(left: Covariance, right: Covariance, *, centered: bool) -> float:
    product = float(multiply(left.factor_RD, right.factor_RD.T).square().sum())
    squares = [float(smaller_gram(cov.factor_RD).square().sum()) for cov in (left, right)]
    if centered:
        sums = [float(cov.factor_RD.sum(dim=1).square().sum()) for cov in (left, right)]
        entries = left.patch.size**2
        product -= sums[0] * sums[1] / entries
        squares = [square - total * total / entries for square, total in zip(squares, sums, strict=True)]
    return product / math.sqrt(squares[0] * squares[1]) if min(squares) > 0.0 else 0.0


def bures_wasserstein(left: Covariance, right: Covariance) -> tuple[float, float]:
    """Return the squared Bures-Wasserstein distance and its cosine (arXiv 2409.19460).

    d² = tr A + tr B − 2‖A^½·B^½‖_*, cosine = ‖A^½·B^½‖_* / √(tr A · tr B), and ‖·‖_* from F·Gᵀ.
    """
    with one_thread():
        nuclear = float(torch.linalg.svdvals(left.factor_RD @ right.factor_RD.T).sum())
    energy = left.trace * right.trace
    distance = left.trace + right.trace - 2.0 * nuclear
    return max(0.0, distance), nuclear / math.sqrt(energy) if energy > 0.0 else 0.0


def _joined(covariances: Sequence[Covariance]) -> Covariance:
    """Return the first covariance with the sources, samples and digests of all of them."""
    before = [cov.provenance for cov in covariances]
    samples = [p.samples for p in before if p.samples is not None]
    repairs = [p.repair for p in before if p.repair is not None]
    notes = [note for p in before for note in p.notes]
    digests = [c.digest() if c.provenance.digest is None else c.provenance.digest for c in covariances]
    together = Provenance(
        source=" and ".join(dict.fromkeys(p.source for p in before)),
        samples=sum(samples) if samples else None,
        repair=repairs[0] if repairs else None,
        notes=tuple(dict.fromkeys(notes)),
        digest=" ".join(digests),
    )
    return replace(covariances[0], provenance=together)


def effective_rank(values_K: Tensor) -> float:
    """Return Σ_k k·λ_k / Σ_k λ_k of descending eigenvalues, k from 1 (arXiv 2409.19460)."""
    index_K = torch.arange(1, len(values_K) + 1, dtype=values_K.dtype)
    return float((index_K * values_K).sum() / values_K.sum())
