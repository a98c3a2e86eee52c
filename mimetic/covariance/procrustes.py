"""Orthogonal Procrustes: the rotation that brings one network's features to those of another.

Two networks that compute the same have their channels in other bases. With features φ of the reference and
ψ of the other at the same place and images, Â = argmin_{ÂᵀÂ = I} E‖Âψ − φ‖² = U·Vᵀ from the singular value
decomposition E[φψᵀ] = U·S·Vᵀ, uncentered (Guth, Ménard, Rochette, Mallat, "A rainbow in deep network black
boxes", arXiv 2305.18512, section 2).

Shapes: R channels of the reference, N channels of the other, O filters, K kernel.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mimetic.covariance.linalg import multiply
from mimetic.threads import one_thread

_NEGLIGIBLE = 1e-10
"""Singular values below this share of the largest belong to channels that never fire."""


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Rotation from the channels of another network to those of the reference.

    Attributes:
        rotation_RN: √(R/N)·Â, with Â's rows or columns orthonormal, whichever are fewer; float64. The factor
            makes features of any width comparable: what converges with width is φ/√R (section 2).
        explained: 1 − E‖√(R/N)·Âψ − φ‖² / E‖φ‖², the share of the reference's energy that is met; 1 for a
            rotated copy, and negative where the other's features are much larger. None for another rotation
            than the best.
        cosine: ‖E[φψᵀ]‖_* / √(E‖φ‖²·E‖ψ‖²), the same whatever the features' scale; 1 for a rotated copy.
    """

    rotation_RN: Tensor
    explained: float | None
    cosine: float | None = None


def aligned(cross_RN: Tensor, energy_R: float, energy_N: float) -> Alignment:
    """Return the best rotation and what it explains.

    Args:
        cross_RN: E[φψᵀ], over images and positions.
        energy_R: E‖φ‖² of the reference.
        energy_N: E‖ψ‖² of the other.
    """
    rotation_RN, nuclear = polar(cross_RN)
    scale = width_scale(rotation_RN)
    error = energy_R + scale**2 * energy_N - 2.0 * scale * nuclear
    product = energy_R * energy_N
    return Alignment(
        scale * rotation_RN,
        explained=1.0 - error / energy_R if energy_R > 0.0 else 0.0,
        cosine=nuclear / math.sqrt(product) if product > 0.0 else 0.0,
    )


def width_scale(rotation_RN: Tensor) -> float:
    """Return √(R/N), the factor between features of two widths."""
    return math.sqrt(rotation_RN.shape[0] / rotation_RN.shape[1])


def polar(matrix_RN: Tensor) -> tuple[Tensor, float]:
    """Return the orthogonal polar factor U·Vᵀ of a matrix U·S·Vᵀ, and its nuclear norm tr S.

    It carries none of the singular vectors' arbitrary signs. Directions without a singular value are left
    out: there the factor would be anybody's choice.
    """
    with one_thread():
        left_RK, values_K, right_KN = torch.linalg.svd(matrix_RN.double(), full_matrices=False)
    present_K = values_K > _NEGLIGIBLE * values_K.max()
    return multiply(left_RK[:, present_K], right_KN[present_K]), float(values_K.sum())


def rotated(weight_ORK: Tensor, rotation_RN: Tensor, positions: int = 1) -> Tensor:
    """Return filters over the other network's channels: w'[o, n, …] = Σ_r w[o, r, …]·Â[r, n].

    It commutes with the extraction of patches, so every tap of a kernel is rotated alike.

    Args:
        weight_ORK: Filters (outputs, inputs, *kernel); a matrix for linear layers.
        rotation_RN: The rotation of the channels.
        positions: Pixels per channel in the inputs of a linear layer behind a flattened map, channels
            first.
    """
    outputs, inputs, *kernel = weight_ORK.shape
    channels_ORM = weight_ORK.double().reshape(outputs, inputs // positions, -1)
    with one_thread():
        rotated_ONM = torch.einsum("orm,rn->onm", channels_ORM, rotation_RN)
    return rotated_ONM.reshape(outputs, rotation_RN.shape[1] * positions, *kernel).contiguous()
