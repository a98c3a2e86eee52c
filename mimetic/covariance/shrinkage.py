"""Shrinkage: what of an estimated covariance is more than the noise of few samples.

Linear shrinkage pulls Σ toward a simpler target, Σ' = (1 − α)·Σ + α·T: toward its own diagonal, or toward
the isotropic matrix of the same trace. The intensity is given or estimated (Ledoit and Wolf, 2004, for the
isotropic target; Schäfer and Strimmer, 2005, for the diagonal one). Spiked shrinkage works on the
eigenvalues instead and removes the noise bulk of random matrix theory (arXiv 2409.19460).

Shapes: H samples (filters), D coordinates, K eigenvalues.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from mimetic.covariance.covariance import Covariance, derived
from mimetic.covariance.linalg import one_thread, smaller_gram
from mimetic.errors import UserError

Target = Literal["identity", "diagonal"]

LARGEST = 2048
"""Most coordinates for which a matrix of full rank is formed."""


@one_thread()
def intensity(samples_HD: Tensor, *, target: Target = "identity") -> float:
    """Return the estimated best intensity α in [0, 1] for Σ = XᵀX/H of centered samples.

    The ratio of the estimator's variance to its squared distance from the target, both summed over the
    entries that the target changes; no d×d matrix is formed where H < d.
    """
    samples = samples_HD.double()
    count, size = samples.shape
    squares = samples.square()
    diagonal = squares.mean(dim=0)
    norm = float(smaller_gram(samples).square().sum()) / count**2
    energy = float(squares.sum(dim=1).square().sum())
    if target == "identity":
        noise = (energy / count - norm) / count
        distance = norm - float(diagonal.sum()) ** 2 / size
    else:
        own = float(diagonal.square().sum())
        noise = ((energy - float(squares.square().sum())) / count - (norm - own)) / count
        distance = norm - own
    return min(1.0, max(0.0, noise / distance)) if distance > 0.0 else 1.0


@one_thread()
def shrunk(cov: Covariance, alpha: float, *, target: Target = "identity") -> Covariance:
    """Return (1 − α)·Σ + α·T with T = diag(Σ), or the isotropic matrix of Σ's trace; the trace is kept.

    Raises:
        UserError: If α is outside [0, 1], or d is so large that the full-rank result should not be formed.
    """
    if not 0.0 <= alpha <= 1.0:
        message = f"the shrinkage intensity must lie in [0, 1], not {alpha}"
        raise UserError(message)
    size = cov.patch.size
    if size > LARGEST:
        message = f"covariance `{cov.provenance.source}`: shrinkage has full rank over {size} coordinates "
        raise UserError(message + f"(limit {LARGEST}); shrink the spatial covariance instead")
    mean = torch.full((size,), cov.trace / size, dtype=torch.float64)
    variance_D = mean if target == "identity" else cov.variance
    factor_RD = torch.cat((math.sqrt(1.0 - alpha) * cov.factor_RD, torch.diag((alpha * variance_D).sqrt())))
    return derived(cov, factor_RD, cov.patch, note=f"shrunk {alpha:.3g} toward its {_NAMES[target]}")


_NAMES: dict[Target, str] = {"identity": "mean variance", "diagonal": "diagonal"}


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
