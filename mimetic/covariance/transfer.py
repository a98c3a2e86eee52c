"""Carry covariances to networks of other depth, kernel size and channels (arXiv 2210.03651).

Every operator is linear in the filters, Σ' = L·Σ·Lᵀ, so in factor form F' = F·Lᵀ: positive
semidefiniteness is preserved by construction and nothing of size d×d is formed. Width and patch size need no
operator: draw as many filters as there are channels.

Shapes: R rows of a factor, C channels, K one side of a kernel.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from mimetic.covariance.covariance import Covariance, PatchGeometry, derived
from mimetic.graph.site import shape_text
from mimetic.threads import one_thread

Keep = Literal["nothing", "trace", "pixel"]
"""What a resize keeps: `nothing` (plain interpolation), the trace (a filter's energy), or the mean
variance of a pixel."""

SYMMETRIZED = "symmetrized over the kernel's symmetries"
"""Note of `symmetrized`."""

_RGB = 3
_ABSENT = 1e-6


def interpolation(target: int, source: int, *, align_corners: bool = False) -> Tensor:
    """Return the linear interpolation matrix R (target, source) along one axis.

    Row a places (1 − t, t) on ⌊x⌋ and ⌊x⌋ + 1 with x = (a + ½)·source/target − ½ clamped to the axis, or
    x = a·(source − 1)/(target − 1) with aligned corners: what torch's bilinear interpolation does.
    """
    place = torch.arange(target, dtype=torch.float64)
    if not align_corners:
        place = ((place + 0.5) * (source / target) - 0.5).clamp(0.0, source - 1.0)
    elif target > 1:
        place = place * ((source - 1) / (target - 1))
    left = place.floor().clamp(max=max(source - 2, 0)).long()
    share = place - left
    rows = torch.arange(target)
    matrix = torch.zeros(target, source, dtype=torch.float64)
    matrix[rows, left] = 1.0 - share
    if source > 1:
        matrix[rows, left + 1] = share
    return matrix


@one_thread()
def resized(
    cov: Covariance, kernel_size: tuple[int, ...], *, align_corners: bool = False, keep: Keep = "nothing"
) -> Covariance:
    """Return the covariance of filters resized by linear interpolation, (R⊗R)·Σ·(R⊗R)ᵀ.

    Args:
        cov: A covariance over patches with as many kernel sides.
        kernel_size: The new sides.
        align_corners: Whether the outer pixels stay on the outer pixels.
        keep: What a factor restores afterwards; the paper's own choice is not known.
    """
    before, rank = cov.patch.kernel_size, cov.rank
    if before == kernel_size:
        return cov
    factor = cov.factor_RD.view(rank, cov.patch.channels, *before)
    for axis, (old, new) in enumerate(zip(before, kernel_size, strict=True), start=2):
        matrix = interpolation(new, old, align_corners=align_corners)
        factor = torch.tensordot(factor, matrix, dims=([axis], [1])).movedim(-1, axis)
    flat_RD = factor.reshape(rank, -1)
    if keep != "nothing":
        wanted = restored_trace(cov.trace, before, kernel_size, keep=keep)
        flat_RD = flat_RD * math.sqrt(wanted / max(float(flat_RD.square().sum()), 1e-300))
    return derived(
        cov,
        flat_RD,
        PatchGeometry(cov.patch.channels, kernel_size),
        note=resize_text(before, kernel_size, keep=keep, align_corners=align_corners),
    )


def restored_trace(
    trace: float, before: tuple[int, ...], after: tuple[int, ...], *, keep: Literal["trace", "pixel"]
) -> float:
    """Return the trace over a new kernel: that over the old one, or the one with its mean over the pixels."""
    return trace if keep == "trace" else math.prod(after) / math.prod(before) * trace


def resize_text(before: tuple[int, ...], after: tuple[int, ...], *, keep: Keep, align_corners: bool) -> str:
    """Describe a change of kernel size for a provenance."""
    corners = " by corners" if align_corners else ""
    kept = "" if keep == "nothing" else f", {keep} kept"
    return f"resized {shape_text(before)}→{shape_text(after)}{corners}{kept}"


def depth_position(depth: float, layers: int) -> tuple[int, float]:
    """Return the pair (⌊t⌋, frac t) of t = depth·(layers − 1), the place of a depth among layers.

    depth = l/(D' − 1) of a target network gives the pairs of arXiv 2210.03651; the last layer is
    (layers − 1, 0).
    """
    place = min(max(depth, 0.0), 1.0) * (layers - 1)
    # The product of a fraction l/(D' − 1) can miss a whole number by its last bit.
    lower = math.floor(place + 1e-9)
    return lower, max(0.0, place - lower)


def smoothed_weights(position: float, layers: int, width: float) -> dict[int, float]:
    """Return the weights exp(−(j − position)²/2·width²) of layers j = 0 …, scaled to sum 1.

    Those below a millionth are left out.

    Args:
        position: Place among the layers, 0 for the first.
        layers: Their number.
        width: Deviation of the Gaussian, in layers.
    """
    weights = {at: math.exp(-0.5 * ((at - position) / width) ** 2) for at in range(layers)}
    smallest = _ABSENT * sum(weights.values())
    present = {at: weight for at, weight in weights.items() if weight > smallest}
    total = sum(present.values())
    return {at: weight / total for at, weight in present.items()}


def with_channels(cov: Covariance, matrix_NC: Tensor, *, note: str) -> Covariance:
    """Return the covariance of filters whose channel axis a matrix maps, (M⊗I)·Σ·(M⊗I)ᵀ.

    Args:
        cov: A covariance over C channels.
        matrix_NC: The map M to N channels.
        note: What it does, for the provenance.
    """
    factor = cov.factor_RD.view(cov.rank, cov.patch.channels, -1)
    with one_thread():
        mapped_RND = torch.einsum("nc,rcd->rnd", matrix_NC.double(), factor)
    patch = PatchGeometry(len(matrix_NC), cov.patch.kernel_size)
    return derived(cov, mapped_RND.reshape(cov.rank, -1), patch, note=note)


def symmetrized(cov: Covariance) -> Covariance:
    """Return the mean of a covariance over the symmetries of its kernel, Σ' = 1/|G|·Σ_g P_g·Σ·P_gᵀ.

    G is the dihedral group of a square kernel (eight elements), the reflections along each side otherwise. A
    covariance estimated from n filters has the noise of up to |G|·n then.
    """
    sides = cov.patch.kernel_size
    factor = cov.factor_RD.view(cov.rank, cov.patch.channels, *sides)
    axes = [axis + 2 for axis, side in enumerate(sides) if side > 1]
    images = [factor]
    for axis in axes:
        images += [image.flip(axis) for image in images]
    square = len(sides) == 2 and sides[0] == sides[1] > 1  # noqa: PLR2004
    if square:
        images += [image.transpose(2, 3) for image in images]
    if len(images) == 1:
        return cov
    rows_RD = torch.cat([image.reshape(cov.rank, -1) for image in images]) / math.sqrt(len(images))
    return derived(cov, rows_RD, cov.patch, note=SYMMETRIZED)


def marginal(cov: Covariance) -> Covariance:
    """Return the spatial covariance of one input channel, the mean over the channels' diagonal blocks.

    Each input channel of a target filter draws from it independently, so it fits any number of them.
    """
    channels = cov.patch.channels
    if channels == 1:
        return cov
    factor_RD = cov.factor_RD.view(cov.rank * channels, -1) / math.sqrt(channels)
    patch = PatchGeometry(1, cov.patch.kernel_size)
    return derived(cov, factor_RD, patch, note=f"{channels} input channels to their mean spatial covariance")


def tiled(cov: Covariance, channels: int) -> Covariance:
    """Return the covariance of filters whose channels are repeated cyclically, w'[c] = w[c mod C]·√(C/C').

    A filter's energy is preserved where C divides C'; repeated channels are fully correlated.
    """
    own = cov.patch.channels
    matrix_NC = torch.zeros(channels, own, dtype=torch.float64)
    matrix_NC[torch.arange(channels), torch.arange(channels) % own] = math.sqrt(own / channels)
    return with_channels(cov, matrix_NC, note=f"{own} input channels tiled to {channels}")


def grey_from_rgb(cov: Covariance) -> Covariance:
    """Return the covariance of filters on grey images: w' = w_R + w_G + w_B.

    The filter then answers a grey image as the original answers it copied into three channels.
    """
    return with_channels(cov, torch.ones(1, _RGB, dtype=torch.float64), note="RGB summed to grey")


def rgb_from_grey(cov: Covariance) -> Covariance:
    """Return the covariance of filters on RGB images: a third of the grey filter in every channel."""
    matrix_NC = torch.full((_RGB, 1), 1.0 / _RGB, dtype=torch.float64)
    return with_channels(cov, matrix_NC, note="grey spread over RGB")
