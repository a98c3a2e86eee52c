"""Patch AGOP of a CNTK predictor, differentiated by hand: no autograd graph, no gradient per output.

The predictor is f_o(x) = Σ_j α_jo·K(x_j, x). Its gradient at a patch of x comes from two maps of each pair,
∂K/∂Σ[p] and ∂K/∂Q[p], which are independent of the outputs (chain rule of `cntk`):

    g_o(p) = F·[ Σ_j α_jo (∂K/∂Σ)_j[p]·u_jp + 2·Σ_j α_jo (∂K/∂Q)_j[p]·u_p ]/c,   G = (1/s) Σ_x Σ_o Σ_p g gᵀ

so the outputs are matrix products. With κ(ρ) = √(1−ρ²)/π + a·ρ and a = (π−θ)/π, κ' = a; going down a
layer, with Σ̄ and Θ̄ the derivatives by the layer's outputs:

    t = Θ̄·Θ/(π√(1−ρ²)),   Q̄ += Σ̄·√(Q'/Q)·√(1−ρ²)/2π − t·ρ/2Q,   Σ̄ ← a·Σ̄ + t/√(QQ'),   Θ̄ ← a·Θ̄

The term t is omitted where ρ is 1 up to rounding (an image with itself): its two parts cancel there.

Shapes: S images at which gradients are taken, M training images, K outputs, P positions, D patch coordinates.
"""

import math

import torch
from torch import Tensor

from mimetic.kernels.cntk import angle_share, block_side, correlations, scaled, sine, tile_size
from mimetic.kernels.patches import (
    Patches,
    PatchInputs,
    Progress,
    no_progress,
    spread_windows,
    tiles,
    window_sums,
)

GRADIENT_ELEMENTS = {"cpu": 2**25, "cuda": 2**28}
"""Positions × images × outputs × patch coordinates of the gradients in memory at once."""

_ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}
"""1 − ρ² below which ρ counts as 1."""


def patch_agop(
    images_SCHW: Tensor,
    others_MCHW: Tensor,
    alpha_MK: Tensor,
    inputs: PatchInputs,
    *,
    progress: Progress = no_progress,
) -> Tensor:
    """Return G = (1/S) Σ_x Σ_o Σ_p g gᵀ of the predictor's gradients by raw patches, (D, D) float64.

    Args:
        images_SCHW: Images at which gradients are taken, as stored.
        others_MCHW: The training images.
        alpha_MK: Coefficients of the predictor, float64.
        inputs: From images to the kernel's patches.
        progress: Called with the fraction that is done.
    """
    one = inputs.prepare(images_SCHW[:1])
    positions, _, coordinates = one.unit_PND.shape
    device, dtype = one.unit_PND.device, one.unit_PND.dtype
    alpha = alpha_MK.to(device, dtype)
    limit = GRADIENT_ELEMENTS.get(device.type, 2**25)
    batch = max(1, limit // (positions * coordinates * alpha.shape[1]))
    total_DD = torch.zeros(coordinates, coordinates, dtype=torch.float64)
    runs = tiles(len(images_SCHW), batch)
    others = tiles(len(others_MCHW), tile_size(positions, coordinates, device))
    for i, chosen in enumerate(runs):
        gradients = _Gradients(inputs.prepare(images_SCHW[slice(*chosen)]), alpha.shape[1])
        for j, bounds in enumerate(others):
            gradients.add(inputs.prepare(others_MCHW[slice(*bounds)]), alpha[slice(*bounds)])
            progress((i + (j + 1) / len(others)) / len(runs))
        total_DD += gradients.outer_products().double().cpu()
    if inputs.factor_DD is not None:
        root_DD = inputs.factor_DD.double().cpu()
        total_DD = root_DD @ total_DD @ root_DD
    return torch.nan_to_num(total_DD / len(images_SCHW), nan=0.0)


class _Gradients:
    """Accumulates the terms of the gradients at some images over training images."""

    def __init__(self, here: Patches, outputs: int) -> None:
        positions, count, coordinates = here.unit_PND.shape
        self.here = here
        self.cross_PBD = here.unit_PND.new_zeros(positions, outputs * count, coordinates)
        self.own = [here.unit_PND.new_zeros(rows * columns, count, outputs) for rows, columns in here.grids]

    def add(self, there: Patches, alpha_MK: Tensor) -> None:
        """Add training images, one block of pairs at a time."""
        positions, count, _ = self.here.unit_PND.shape
        pairs = block_side(positions, self.here.unit_PND.device) ** 2
        for bounds in tiles(len(there), max(1, pairs // count)):
            part, alpha = there.part(*bounds), alpha_MK[slice(*bounds)]
            slope_PSM, own = _pair_slopes(self.here, part)
            for total_PSK, slopes in zip(self.own, own, strict=True):
                total_PSK.add_(slopes @ alpha)
            # Multiply outputs into the smaller side: outputs × images rows, not outputs × coordinates.
            weighted = slope_PSM[:, None] * (alpha.T[None, :, None, :])
            patches_PMD = part.unit_PND * part.roots[0][:, :, None] * math.sqrt(part.channels)
            self.cross_PBD.baddbmm_(weighted.flatten(1, 2), patches_PMD)

    def outer_products(self) -> Tensor:
        """Return the sum of the outer products of the gradients, before the outer F of each."""
        here = self.here
        positions, count, coordinates = here.unit_PND.shape
        by_norm_PSK = self.own[-1]
        for layer in range(len(self.own) - 2, -1, -1):
            spread = spread_windows(by_norm_PSK, here.grids[layer + 1], here.side)
            by_norm_PSK = self.own[layer] + spread
        patches_PSD = here.unit_PND * here.roots[0][:, :, None] * math.sqrt(here.channels)
        gradient_PKSD = self.cross_PBD.view(positions, -1, count, coordinates)
        gradient_PKSD += 2.0 * by_norm_PSK.mT[:, :, :, None] * patches_PSD[:, None]
        flat_BD = gradient_PKSD.flatten(0, 2)
        return flat_BD.T @ flat_BD / here.channels**2


def _pair_slopes(left: Patches, right: Patches) -> tuple[Tensor, list[Tensor]]:
    """Return ∂K/∂Σ of the first layer and ∂K/∂Q of each, maps (P_ℓ, S, M) for every pair."""
    correlation, tangent = _forward(left, right)
    count = left.grids[-1][0] * left.grids[-1][1]
    by_covariance = torch.full_like(correlation[-1], 1.0 / count)
    by_tangent = by_covariance.clone()
    own: list[Tensor] = []
    for layer in range(len(left.grids) - 1, -1, -1):
        rho = correlation[layer]
        # The term t, omitted where ρ is 1.
        across = sine(rho)
        sharp = tangent[layer].mul_(by_tangent).div_(math.pi).div_(across)
        sharp.masked_fill_(across.square() < _ROUNDING[rho.dtype], 0.0)
        # The derivative by the norm Q of this layer.
        ratio = scaled(
            across.mul_(by_covariance).mul_(0.5 / math.pi), left.inverses[layer], right.roots[layer]
        )
        half = 0.5 * left.inverses[layer].square()
        own.append(ratio.sub_(rho * sharp * half[:, :, None]))
        share = angle_share(rho)
        scaled(sharp, left.inverses[layer], right.inverses[layer])
        by_tangent.mul_(share)
        by_covariance.mul_(share).add_(sharp).add_(by_tangent)  # Σ also enters Θ of its layer
        if layer > 0:
            by_covariance = spread_windows(by_covariance, left.grids[layer], left.side)
            by_tangent = spread_windows(by_tangent, left.grids[layer], left.side)
    return by_covariance, own[::-1]


def _forward(left: Patches, right: Patches) -> tuple[list[Tensor], list[Tensor]]:
    """Return the ρ and Θ that enter each layer, the intermediates of `cntk.pair_block`."""
    correlation = correlations(left, right)
    tangent = scaled(correlation.clone(), left.roots[0], right.roots[0])
    correlations_, tangents = [correlation], [tangent]
    for layer in range(1, len(left.grids)):
        grid, side = left.grids[layer - 1], left.side
        share = angle_share(correlation)
        grown = tangent * share
        covariance = share.mul_(correlation).add_(sine(correlation), alpha=1.0 / math.pi)
        covariance = window_sums(
            scaled(covariance, left.roots[layer - 1], right.roots[layer - 1]), grid, side
        )
        tangent = window_sums(grown, grid, side).add_(covariance)
        correlation = scaled(covariance, left.inverses[layer], right.inverses[layer]).clamp_(-1.0, 1.0)
        correlations_.append(correlation)
        tangents.append(tangent)
    return correlations_, tangents
