"""Whether stored factors make the product they were made for, without another decomposition.

Rounded factors are compared at the rounding of the dtype they are stored in.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mimetic.streams import generator

_PROBES = 4
_STEPS = 3
_ULPS = 16.0
"""How many units of rounding a result may be off; factors rounded once are off by about one half."""


def makes_best(target_MN: Tensor, left_MR: Tensor, right_RN: Tensor, *, rounding: float) -> bool:
    """Tell whether L·R is the best approximation of A of its rank, with orthogonal components.

    Such a product leaves a rest E = A − L·R with E·Rᵀ = 0 and Lᵀ·E = 0, and no singular value of E exceeds
    the smallest of L·R (Eckart and Young); where the rank is that of A, E = 0. Each is tried on random
    vectors, the last by a few steps of the power method, which never overestimates.
    """
    draws = generator("probes")
    left, right = Factors(target_MN, left_MR, right_RN), Factors(target_MN.T, right_RN.T, left_MR.T)
    if left_MR.shape[1] >= min(target_MN.shape):
        return left.rest(_probes(target_MN.shape[1], draws)) <= _ULPS * rounding
    through_R = _probes(left_MR.shape[1], draws)
    if left.rest(right_RN.T @ through_R) > _ULPS * rounding:
        return False
    if right.rest(left_MR @ through_R) > _ULPS * rounding:
        return False
    smallest = (left_MR.norm(dim=0) * right_RN.norm(dim=1)).min()
    vectors_NP = _probes(target_MN.shape[1], draws)
    for _ in range(_STEPS):
        vectors_NP = right.missing(left.missing(vectors_NP))
        vectors_NP /= vectors_NP.norm(dim=0).clamp(min=torch.finfo(vectors_NP.dtype).tiny)
    missed = left.missing(vectors_NP).norm(dim=0).max()
    return bool(missed <= smallest + _ULPS * rounding * (left_MR.norm() * right_RN.norm()))


@dataclass(frozen=True, slots=True)
class Factors:
    """A target and the factors of its approximation, from the side of one of them."""

    target_MN: Tensor
    left_MR: Tensor
    right_RN: Tensor

    def missing(self, vectors_NP: Tensor) -> Tensor:
        """Return (A − L·R)·X."""
        return self.target_MN @ vectors_NP - self.left_MR @ (self.right_RN @ vectors_NP)

    def rest(self, vectors_NP: Tensor) -> float:
        """Return the size of (A − L·R)·X relative to that of A·X."""
        size = float((self.target_MN @ vectors_NP).norm())
        missing = float(self.missing(vectors_NP).norm())
        return missing / size if size > 0.0 else missing


def semi_orthogonal_rows(heads_HKD: Tensor, *, rounding: float) -> bool:
    """Tell whether the shorter side of each of several matrices is orthonormal."""
    wide_HKD = heads_HKD if heads_HKD.shape[1] <= heads_HKD.shape[2] else heads_HKD.mT
    gram_HKK = wide_HKD @ wide_HKD.mT
    eye_KK = torch.eye(gram_HKK.shape[-1], dtype=gram_HKK.dtype)
    return bool((gram_HKK - eye_KK).abs().max() <= _ULPS * rounding)


def close(values: Tensor, expected: Tensor | float, *, rounding: float) -> bool:
    """Tell whether values are those expected, to rounding."""
    return bool((values - expected).norm() <= _ULPS * rounding * values.norm())


def _probes(size: int, draws: Generator) -> Tensor:
    return torch.randn((size, _PROBES), generator=draws, dtype=torch.float64)
