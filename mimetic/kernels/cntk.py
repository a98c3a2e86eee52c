"""Closed-form convolutional neural tangent kernel of the network ConvRFM uses (arXiv 2309.00570).

conv(s) → ReLU → [conv(s) → ReLU]×(D−1) → flatten → dense, infinitely wide, all convolutions without
padding, no pooling, no biases, W_std = s for convolutions and 1 for the dense layer, ReLU scaled by √2:

    Σ[p] = ⟨u_p, u'_p⟩/c,  Q[p] = ‖u_p‖²/c,  Θ = Σ                                    (patches u times F)
    for layer 1..D:
        from the second on:  Σ, Q, Q' ← window sums;  Θ ← window sums of Θ, plus Σ
        ρ = Σ/√(QQ'),  θ = arccos ρ
        Θ ← Θ·(π − θ)/π,   Σ ← √(QQ')·[√(1−ρ²) + (π−θ)·ρ]/π
    K(x, x') = mean_p Θ[p] + mean_p Σ[p]

Only equal positions interact, so the work is elementwise on one map per pair. Pairs are processed in blocks
that fit a cache: memory depends neither on the number of pairs nor on pairs × positions. If both sides
are the same images, half of the pairs are computed, and the diagonal, where ρ = 1, is exact.

Shapes: N, M images; P positions; D patch coordinates.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mimetic.kernels.patches import Patches, PatchInputs, Progress, no_progress, tiles, window_sums

MAP_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}
"""Pairs × positions of one block: a megabyte of float32 stays in a core's cache."""

TILE_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}
"""Images × positions × patch coordinates that are unfolded at once."""


def block_side(positions: int, device: torch.device) -> int:
    """Return the number of images on each side of a block of pairs."""
    return max(1, math.isqrt(MAP_ELEMENTS.get(device.type, 2**18) // positions))


def tile_size(positions: int, coordinates: int, device: torch.device) -> int:
    """Return the number of images that are unfolded at once."""
    return max(1, TILE_ELEMENTS.get(device.type, 2**22) // (positions * coordinates))


def kernel(images_NCHW: Tensor, inputs: PatchInputs, *, progress: Progress = no_progress) -> Tensor:
    """Return K(X, X) as (N, N) in float64 on the CPU, exactly symmetric.

    Args:
        images_NCHW: Images as stored.
        inputs: From images to the kernel's patches.
        progress: Called with the fraction that is done.
    """
    count = len(images_NCHW)
    found_NN = torch.empty(count, count, dtype=torch.float64)
    runs = tiles(count, _tile_size(images_NCHW, inputs))
    for i, rows in enumerate(runs):
        left = inputs.prepare(images_NCHW[slice(*rows)])
        for j, columns in enumerate(runs[i:], start=i):
            same = i == j
            right = left if same else inputs.prepare(images_NCHW[slice(*columns)])
            block_NM = _tile_pairs(left, right, symmetric=same)
            found_NN[slice(*rows), slice(*columns)] = block_NM
            found_NN[slice(*columns), slice(*rows)] = block_NM.T
            progress((i + (j - i + 1) / (len(runs) - i)) / len(runs))
    return found_NN


def kernel_rows(
    images_NCHW: Tensor, others_MCHW: Tensor, inputs: PatchInputs, *, progress: Progress = no_progress
) -> Iterator[Tensor]:
    """Yield K(X, X') in blocks of rows, float64 on the CPU; the arguments are those of `kernel`."""
    size = _tile_size(images_NCHW, inputs)
    runs, against = tiles(len(images_NCHW), size), tiles(len(others_MCHW), size)
    for i, rows in enumerate(runs):
        left = inputs.prepare(images_NCHW[slice(*rows)])
        parts = []
        for j, columns in enumerate(against):
            right = inputs.prepare(others_MCHW[slice(*columns)])
            parts.append(_tile_pairs(left, right, symmetric=False))
            progress((i + (j + 1) / len(against)) / len(runs))
        yield torch.cat(parts, dim=1)


def _tile_size(images_NCHW: Tensor, inputs: PatchInputs) -> int:
    one = inputs.prepare(images_NCHW[:1])
    return tile_size(one.unit_PND.shape[0], one.unit_PND.shape[2], one.unit_PND.device)


def _tile_pairs(left: Patches, right: Patches, *, symmetric: bool) -> Tensor:
    """Return the kernel of two tiles, block by block; of one tile with itself from half of the pairs."""
    side = block_side(left.unit_PND.shape[0], left.unit_PND.device)
    found_NM = torch.empty(len(left), len(right), dtype=torch.float64)
    columns = tiles(len(right), side)
    for rows in tiles(len(left), side):
        one = left.part(*rows)
        for others in columns:
            if symmetric and others[0] < rows[0]:
                found_NM[slice(*rows), slice(*others)] = found_NM[slice(*others), slice(*rows)].T
                continue
            found_NM[slice(*rows), slice(*others)] = pair_block(one, right.part(*others)).cpu()
    if symmetric:
        lower_NN = found_NM.tril(-1)  # diagonal blocks were computed twice: use one half
        found_NM = lower_NN + lower_NN.T
        found_NM.diagonal().copy_(diagonal(left))
    return found_NM


def pair_block(left: Patches, right: Patches) -> Tensor:
    """Return the kernel of every pair of a few images, (N, M)."""
    correlation = correlations(left, right)
    tangent = scaled(correlation.clone(), left.roots[0], right.roots[0])
    covariance = tangent
    for layer in range(len(left.grids)):
        if layer > 0:
            grid = left.grids[layer - 1]
            covariance = window_sums(covariance, grid, left.side)
            tangent = window_sums(tangent, grid, left.side).add_(covariance)
            correlation = scaled(covariance, left.inverses[layer], right.inverses[layer]).clamp_(-1.0, 1.0)
        share = angle_share(correlation)
        tangent.mul_(share)
        covariance = share.mul_(correlation).add_(sine(correlation), alpha=1.0 / math.pi)
        scaled(covariance, left.roots[layer], right.roots[layer])
    return tangent.add_(covariance).mean(dim=0)


def diagonal(patches: Patches) -> Tensor:
    """Return K(x, x) of each image, float64: ρ = 1 in every layer, without the rounding of arccos.

    With ρ = 1, Θ of a layer is its window sum plus Q, and Σ is Q.
    """
    covariance_PN = patches.roots[0].double().square()
    tangent_PN = covariance_PN
    for grid in patches.grids[:-1]:
        covariance_PN = window_sums(covariance_PN, grid, patches.side)
        tangent_PN = window_sums(tangent_PN, grid, patches.side) + covariance_PN
    return (tangent_PN + covariance_PN).mean(dim=0).cpu()


def correlations(left: Patches, right: Patches) -> Tensor:
    """Return ρ of the first layer at every position of every pair, (P, N, M)."""
    return torch.bmm(left.unit_PND, right.unit_PND.mT).clamp_(-1.0, 1.0)


def scaled(maps_PNM: Tensor, left_PN: Tensor, right_PM: Tensor) -> Tensor:
    """Scale maps in place by one factor per image of either side."""
    return maps_PNM.mul_(left_PN[:, :, None]).mul_(right_PM[:, None, :])


def angle_share(correlation: Tensor) -> Tensor:
    """Return (π − arccos ρ)/π."""
    return torch.acos(correlation).mul_(-1.0 / math.pi).add_(1.0)


def sine(correlation: Tensor) -> Tensor:
    """Return √(1 − ρ²)."""
    one = correlation.new_ones(())
    return torch.addcmul(one, correlation, correlation, value=-1.0).clamp_(min=0.0).sqrt_()
