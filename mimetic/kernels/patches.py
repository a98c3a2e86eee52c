"""Patches of images at every position, as the CNTK needs them: unit vectors and norms, layer by layer.

The kernel's first layer uses each patch exactly once (patch expansion, arXiv 2309.00570), multiplied by a
symmetric matrix F; later layers sum over windows of positions. The norms Q_ℓ depend on one image only, so
they are computed once per image and not once per pair.

Shapes: N images, P positions, D = channels·side² patch coordinates in torch's order (c, a, b), H×W positions
in rows and columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

Features = Callable[[Tensor], Tensor]
"""Converts stored images (uint8) to the kernel's input, in floating point."""

Progress = Callable[[float], None]
"""Called with the fraction of the work that is done; may raise to stop it."""


def no_progress(_fraction: float) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The network whose infinite-width kernel is computed: convolutions with ReLU, then one dense layer.

    Attributes:
        patch_size: Side of every convolution.
        depth: Number of convolutions.
        padding: Whether the images are zero-padded, patch_size // 2 on each side, before the first.
    """

    patch_size: int = 3
    depth: int = 3
    padding: bool = False

    def grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return the rows and columns of positions after each convolution; empty if one does not fit."""
        around = 2 * (self.patch_size // 2) if self.padding else 0
        less = self.patch_size - 1
        sides = [
            (height + around - less * layer, width + around - less * layer)
            for layer in range(1, self.depth + 1)
        ]
        return tuple(sides) if min(sides[-1]) >= 1 else ()


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of some images, prepared for pairs.

    Attributes:
        unit_PND: Patches times F, divided by their norms; zero for zero patches.
        roots: √Q_ℓ at each position of each image, one (P_ℓ, N) per layer.
        inverses: 1/√Q_ℓ, or zero if Q_ℓ is zero.
        grids: Rows and columns of positions of each layer.
        side: Side of every convolution.
        channels: Channels of the images, the c of Σ = ⟨u, u'⟩/c.
    """

    unit_PND: Tensor
    roots: tuple[Tensor, ...]
    inverses: tuple[Tensor, ...]
    grids: tuple[tuple[int, int], ...]
    side: int
    channels: int

    def __len__(self) -> int:
        """Return the number of images."""
        return self.unit_PND.shape[1]

    def part(self, start: int, stop: int) -> "Patches":
        """Return the patches of some of the images."""
        return replace(
            self,
            unit_PND=self.unit_PND[:, start:stop],
            roots=tuple(root_PN[:, start:stop] for root_PN in self.roots),
            inverses=tuple(inverse_PN[:, start:stop] for inverse_PN in self.inverses),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PatchInputs:
    """From stored images to the patches of a kernel.

    Attributes:
        architecture: The kernel's network.
        features: Converts stored images to the kernel's input, of the dtype and device that compute.
        factor_DD: The symmetric matrix F that multiplies each patch; the identity if None.
    """

    architecture: Architecture
    features: Features
    factor_DD: Tensor | None = None

    def prepare(self, pixels_NCHW: Tensor) -> Patches:
        """Return the patches of images times F at stride 1, with the norms of all layers."""
        images_NCHW, side = self.features(pixels_NCHW), self.architecture.patch_size
        around = side // 2 if self.architecture.padding else 0
        patches_PND = functional.unfold(images_NCHW, side, padding=around).permute(2, 0, 1).contiguous()
        if self.factor_DD is not None:
            patches_PND = patches_PND @ self.factor_DD.to(patches_PND)
        _, channels, height, width = images_NCHW.shape
        grids = self.architecture.grids(height, width)
        norm_PN = patches_PND.norm(dim=2)
        unit_PND = patches_PND.mul_(_inverse(norm_PN)[:, :, None])
        squares = [norm_PN.square() / channels]
        for grid in grids[:-1]:  # ReLU scaled by √2 preserves Q; windows sum it
            squares.append(window_sums(squares[-1], grid, side))
        roots = tuple(square_PN.sqrt() for square_PN in squares)
        inverses = tuple(_inverse(root_PN) for root_PN in roots)
        return Patches(unit_PND, roots, inverses, grids, side, channels)


def window_sums(maps_PB: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Return the sums over side×side windows of positions, with stride 1 and without padding."""
    rows, columns = grid
    maps_HWB = maps_PB.view(rows, columns, -1)
    return (
        _sum_neighbors(_sum_neighbors(maps_HWB, 0, side), 1, side).flatten(0, 1).view(-1, *maps_PB.shape[1:])
    )


def spread_windows(maps_PB: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Apply the transpose of `window_sums`: add each value to every position of its window.

    `grid` is that of the windows; positions have side − 1 more rows and columns.
    """
    rows, columns = grid
    maps_HWB = maps_PB.view(rows, columns, -1)
    tall_HWB = maps_HWB.new_zeros(rows + side - 1, columns, maps_HWB.shape[2])
    for offset in range(side):
        tall_HWB[offset : offset + rows] += maps_HWB
    wide_HWB = maps_HWB.new_zeros(rows + side - 1, columns + side - 1, maps_HWB.shape[2])
    for offset in range(side):
        wide_HWB[:, offset : offset + columns] += tall_HWB
    return wide_HWB.flatten(0, 1).view(-1, *maps_PB.shape[1:])


def _sum_neighbors(maps_HWB: Tensor, dim: int, side: int) -> Tensor:
    """Return the sums of `side` neighbors along a dimension."""
    if side == 1:
        return maps_HWB
    count = maps_HWB.shape[dim] - side + 1
    total = torch.add(maps_HWB.narrow(dim, 0, count), maps_HWB.narrow(dim, 1, count))
    for offset in range(2, side):
        total.add_(maps_HWB.narrow(dim, offset, count))
    return total


def _inverse(values: Tensor) -> Tensor:
    """Return 1/x, and zero where x is zero."""
    return torch.where(values > 0.0, values.reciprocal(), torch.zeros_like(values))


def tiles(count: int, size: int) -> Sequence[tuple[int, int]]:
    """Split `count` items into (start, stop) ranges of at most `size`."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]
