"""Augmentation of a batch that lives on a device: every image has its own draw, nothing loops over images.

torchvision's transforms draw once per call, so a batch would share one crop (vision#8484). Here each
operation draws index or mask tensors of length N and moves all images in one gather. No operation reads a
value back to the host.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from functools import partial, singledispatch

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.config.registry import Component
from mimetic.data.config import ColorJitter, Crop, Cutout, Flip, RandAugment
from mimetic.data.jitter import color_jitter
from mimetic.data.rand_augment import rand_augment
from mimetic.errors import UserError

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""`augment(pixels_NCHW, generator)`: new pixels of the same shape, dtype and device."""


def augmenter(specs: Sequence[Component], *, mean: Sequence[float] | None = None) -> Augment:
    """Return a function that applies augmentations in order.

    It takes pixels (N, C, H, W) of any dtype and memory format and a generator on their device; equal
    generators give equal results. The input is not changed.

    Args:
        specs: Augmentation sections of a recipe.
        mean: Mean colour in units of [0, 1] that `cutout` paints into uint8 images. Without it, it paints
            each image's own mean colour; into floats it paints 0, the mean of normalized images.
    """
    operations = [operation(spec, mean) for spec in specs]

    def augment(pixels_NCHW: Tensor, draws: torch.Generator) -> Tensor:
        for apply in operations:
            pixels_NCHW = apply(pixels_NCHW, draws)
        return pixels_NCHW

    return augment


@singledispatch
def operation(spec: Component, mean: Sequence[float] | None) -> Augment:  # noqa: ARG001 - its registered kin use it
    """Return the function of one augmentation section; one registered function per section."""
    raise UserError(f"augmentation `{spec.type_name()}` is known to the language but nothing here applies it")


@operation.register
def _(spec: Flip, _mean: Sequence[float] | None) -> Augment:
    return partial(flip, p=spec.p)


@operation.register
def _(spec: Crop, _mean: Sequence[float] | None) -> Augment:
    return partial(crop, padding=spec.padding, fill=spec.fill)


@operation.register
def _(spec: Cutout, mean: Sequence[float] | None) -> Augment:
    return partial(cutout, size=spec.size, mean=mean)


@operation.register
def _(spec: ColorJitter, _mean: Sequence[float] | None) -> Augment:
    return partial(
        color_jitter, brightness=spec.brightness, contrast=spec.contrast, saturation=spec.saturation
    )


@operation.register
def _(spec: RandAugment, _mean: Sequence[float] | None) -> Augment:
    return partial(rand_augment, num_ops=spec.num_ops, magnitude=spec.magnitude)


def flip(pixels_NCHW: Tensor, draws: torch.Generator, *, p: float = 0.5) -> Tensor:
    """Mirror each image left to right with probability p."""
    count, _, _, width = pixels_NCHW.shape
    mirrored_N1 = torch.rand(count, 1, generator=draws, device=pixels_NCHW.device) < p
    column_W = torch.arange(width, device=pixels_NCHW.device)
    source_NW = torch.where(mirrored_N1, width - 1 - column_W, column_W)
    return pixels_NCHW.gather(3, source_NW[:, None, None, :].expand(pixels_NCHW.shape))


def crop(pixels_NCHW: Tensor, draws: torch.Generator, *, padding: int, fill: str = "zero") -> Tensor:
    """Pad each image by `padding` pixels and cut a window of the original size, each at its own place.

    All (2·padding + 1)² places are equally likely. Zero is black in uint8 images and the mean colour in
    normalized floats; `reflect` mirrors at the border pixels, which are not repeated.

    Raises:
        UserError: If `reflect` would reach beyond the opposite border.
    """
    count, channels, height, width = pixels_NCHW.shape
    padded_NCHW = _padded(pixels_NCHW, padding, fill)
    rows, columns = height + 2 * padding, width + 2 * padding
    shift_2N = torch.randint(2 * padding + 1, (2, count), generator=draws, device=pixels_NCHW.device)
    # Every row of every window is a run of `width` elements of the padded memory. A table of all runs,
    # overlapping and therefore free, turns the batch of windows into one selection of rows.
    runs = padded_NCHW.numel() - width + 1
    table_RW = padded_NCHW.view(-1).as_strided((runs, width), (1, 1))
    plane_NC1 = torch.arange(count * channels, device=pixels_NCHW.device).view(count, channels, 1)
    row_N1H = shift_2N[0][:, None, None] + torch.arange(height, device=pixels_NCHW.device)
    start_NCH = (plane_NC1 * rows + row_N1H) * columns + shift_2N[1][:, None, None]
    return table_RW.index_select(0, start_NCH.flatten()).view(pixels_NCHW.shape)


def _padded(pixels_NCHW: Tensor, padding: int, fill: str) -> Tensor:
    """Return a contiguous padded batch."""
    if fill == "zero":
        return functional.pad(pixels_NCHW.contiguous(), (padding,) * 4)
    height, width = pixels_NCHW.shape[2:]
    if padding >= min(height, width):
        raise UserError(
            f"crop: reflecting {padding} pixels needs images larger than that, they are {height}×{width}; "
            "use less padding or `fill: zero`"
        )
    left, right = pixels_NCHW[..., 1 : padding + 1].flip(3), pixels_NCHW[..., -padding - 1 : -1].flip(3)
    wide_NCHW = torch.cat((left, pixels_NCHW, right), dim=3)
    top, bottom = wide_NCHW[:, :, 1 : padding + 1].flip(2), wide_NCHW[:, :, -padding - 1 : -1].flip(2)
    return torch.cat((top, wide_NCHW, bottom), dim=2).contiguous()


def cutout(
    pixels_NCHW: Tensor, draws: torch.Generator, *, size: int, mean: Sequence[float] | None = None
) -> Tensor:
    """Paint a square of `size` pixels a side into each image, its centre anywhere in the image.

    Parts beyond the border are lost, as in DeVries and Taylor (arXiv 1708.04552). See `augmenter` for the
    colour.
    """
    count, _, height, width = pixels_NCHW.shape
    device = pixels_NCHW.device
    place_2N = torch.rand(2, count, generator=draws, device=device)
    inside_NH = _span(place_2N[0], size=size, side=height)
    inside_NW = _span(place_2N[1], size=size, side=width)
    inside_N1HW = (inside_NH[:, :, None] & inside_NW[:, None, :])[:, None]
    return torch.where(inside_N1HW, _color(pixels_NCHW, mean), pixels_NCHW)


def _span(place_N: Tensor, *, size: int, side: int) -> Tensor:
    """Return the mask (N, side) of `size` neighbours around a centre at `place` in [0, 1)."""
    start_N1 = (place_N * side).long()[:, None] - size // 2
    index = torch.arange(side, device=place_N.device)
    return (index >= start_N1) & (index < start_N1 + size)


def _color(pixels_NCHW: Tensor, mean: Sequence[float] | None) -> Tensor:
    if pixels_NCHW.is_floating_point():
        return pixels_NCHW.new_zeros(())
    if mean is None:
        return pixels_NCHW.float().mean((2, 3), keepdim=True).round().to(pixels_NCHW.dtype)
    levels = [round(255.0 * value) for value in mean]
    # From pageable memory without waiting: a plain copy would hold the host until the GPU is idle.
    levels_C = torch.tensor(levels, dtype=pixels_NCHW.dtype).to(pixels_NCHW.device, non_blocking=True)
    return levels_C[:, None, None]
