"""Shrinkage: what of an estimated covariance is more than the noise of few samples.

Linear shrinkage pulls Σ toward the isotropic matrix of the same trace, Σ' = (1 − α)·Σ + α·T; the intensity
is given or estimated (Ledoit and Wolf, 2004). Spiked shrinkage works on the eigenvalues instead and removes
the noise bulk of random matrix theory (arXiv 2409.19460).

Shapes: H samples (filters), D coordinates, K eigenvalues.
"""

import math

import torch
from torch import Tensor

from mimetic.covariance.algebra import filtered, truncated
from mimetic.covariance.covariance import Covariance, derived
from mimetic.covariance.linalg import eigh, multiply, smaller_gram
from mimetic.errors import UserError
from mimetic.threads import one_thread

_NEGLIGIBLE = 1e-12
_POINTS = 10_000

LARGEST = 2048
"""Most coordinates for which a matrix of full rank is formed."""


@one_thread()
def intensity(samples_HD: Tensor) -> float:
    """Return the estimated best intensity α in [0, 1] for Σ = XᵀX/H of centered samples.

    The ratio of the estimator's variance to its squared distance from the target; no d×d matrix is formed
    where H < d.
    """
    samples = samples_HD.double()
    count, size = samples.shape
    squares = samples.square()
    diagonal = squares.mean(dim=0)
    norm = float(smaller_gram(samples).square().sum()) / count**2
    energy = float(squares.sum(dim=1).square().sum())
    noise = (energy / count - norm) / count
    distance = norm - float(diagonal.sum()) ** 2 / size
    return min(1.0, max(0.0, noise / distance)) if distance > 0.0 else 1.0


@one_thread()
def shrunk(cov: Covariance, alpha: float) -> Covariance:
    """Return (1 − α)·Σ + α·T with T the isotropic matrix of Σ's trace.

    Raises:
        UserError: If d is so large that the full-rank result should not be formed.
    """
    size = cov.patch.size
    if size > LARGEST:
        raise UserError(
            f"covariance `{cov.provenance.source}`: shrinkage has full rank over {size} coordinates "
            f"(limit {LARGEST}); shrink the spatial covariance instead",
            code="MIM-V212",
        )
    variance_D = torch.full((size,), cov.trace / size, dtype=torch.float64)
    factor_RD = torch.cat((math.sqrt(1.0 - alpha) * cov.factor_RD, torch.diag((alpha * variance_D).sqrt())))
    return derived(cov, factor_RD, cov.patch, note=f"shrunk {alpha:.3g} toward its mean variance")


def refined(cov: Covariance, *, shrink: float, rank: int | None) -> Covariance:
    """Return a covariance shrunk toward its mean variance and cut to its leading eigenvectors."""
    found = shrunk(cov, shrink) if shrink > 0.0 else cov
    return found if rank is None or rank >= found.rank else truncated(found, rank)


def spiked(values_K: Tensor, gamma: float) -> Tensor:
    """Return eigenvalues of a sample covariance of unit noise with the noise removed.

    λ → (λ−1−γ)/2 + √(((λ+1−γ)/2)² − λ) where λ > (1+√γ)², else 0, with γ the ratio of coordinates to
    samples (arXiv 2409.19460, section on eigenvalue shrinkage; a negative radicand counts as 0).

    Args:
        values_K: Eigenvalues, in units of the noise variance.
        gamma: Coordinates over samples, C_in / C_out for the channels of a layer.
    """
    radicand = (0.5 * (values_K + 1.0 - gamma)).square() - values_K
    signal = 0.5 * (values_K - 1.0 - gamma) + radicand.clamp(min=0.0).sqrt()
    return torch.where(values_K > (1.0 + math.sqrt(gamma)) ** 2, signal, 0.0)


def denoised(cov: Covariance, samples: int) -> Covariance:
    """Return a covariance estimated from filters with the noise bulk taken out of its eigenvalues.

    The noise variance is that at which the median eigenvalue is the median of the Marchenko-Pastur
    distribution, as Gavish and Donoho (arXiv 1305.5870, section 3) estimate it; the eigenvalues then go
    through `spiked` in its units. Where all of them are within the bulk, the largest is left as it is: a
    covariance of zero would make a layer of zeros.

    Args:
        cov: Σ = FᵀF, uncentered.
        samples: Number of filters it was estimated from.
    """
    values, vectors = eigh(smaller_gram(cov.factor_RD))
    gamma = cov.patch.size / samples
    typical = median_of_bulk(gamma) if gamma <= 1.0 else gamma * median_of_bulk(1.0 / gamma)
    present = values[values > _NEGLIGIBLE * values[-1]]
    noise = float(present.median()) / typical
    signal = noise * spiked(values / noise, gamma)
    if not bool((signal > 0.0).any()):
        signal = torch.where(values == values[-1], values, 0.0)
    ratio = torch.where(signal > 0.0, signal / values, 0.0).sqrt()
    count = int((signal > 0.0).sum())
    note = f"noise of variance {noise:.3g} taken out, {count} of {len(present)} eigenvalues kept"
    return filtered(cov, multiply(vectors * ratio, vectors.T), note=note)


def median_of_bulk(gamma: float) -> float:
    """Return the median of the Marchenko-Pastur distribution of unit variance, γ = coordinates/samples ≤ 1.

    Density √((b − x)·(x − a)) / (2πγx) on [a, b] = (1 ∓ √γ)², integrated over x = m + h·cos θ.
    """
    low, high = (1.0 - math.sqrt(gamma)) ** 2, (1.0 + math.sqrt(gamma)) ** 2
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    angle_T = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) * (math.pi / _POINTS)
    value_T = (middle + half * angle_T.cos()).flip(0)
    mass_T = ((half * angle_T.sin()).square() / value_T).flip(0)
    share_T = mass_T.cumsum(0) / mass_T.sum()
    return float(value_T[int(torch.searchsorted(share_T, 0.5))])
