"""Batch augmentation on the device: one random draw per image, no loop over images.

torchvision's transforms draw once per call, so a batch would share one crop (vision#8484). Here each
operation draws index or mask tensors of length N and processes all images at once. No operation waits for
the device.

An augmentation is one section in `mimetic.data.config` and one function (protocol `MakeAugmentation`).

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.config.registry import Component, implementation
from mimetic.data.config import ColorJitter, Crop, Cutout, Flip
from mimetic.errors import UserError

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""`augment(pixels_NCHW, generator)` returns new pixels of the same shape, dtype and device."""

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in Pillow and torchvision."""


class MakeAugmentation(Protocol):
    """Function behind an augmentation section: `def make_flip(spec: Flip, mean) -> Augment`.

    `mean` is the mean colour of the training images in units of [0, 1], or None if it is unknown.
    """

    def __call__(self, spec: Component, mean: Sequence[float] | None, /) -> Augment:
        """Return the operation."""
        ...


def augmenter(specs: Sequence[Component], *, mean: Sequence[float] | None = None) -> Augment:
    """Return a function that applies augmentations in order.

    It takes pixels (N, C, H, W) of any dtype and memory format, and a generator on their device; equal
    generators give equal results. The input is not modified.

    Args:
        specs: Augmentation sections of a recipe.
        mean: Mean colour in units of [0, 1], the fill of `cutout` in uint8 images. If None, each image's own
            mean colour is used; floats are filled with 0, the mean of normalized images.
    """
    operations = [_make(spec, mean) for spec in specs]

    def augment(pixels_NCHW: Tensor, draws: torch.Generator) -> Tensor:
        for apply in operations:
            pixels_NCHW = apply(pixels_NCHW, draws)
        return pixels_NCHW

    return augment


def _make(spec: Component, mean: Sequence[float] | None) -> Augment:
    make: MakeAugmentation = implementation(spec)
    return make(spec, mean)


def make_flip(spec: Flip, _mean: Sequence[float] | None) -> Augment:
    """Return `flip` as configured."""
    return partial(flip, p=spec.p)


def make_crop(spec: Crop, _mean: Sequence[float] | None) -> Augment:
    """Return `crop` as configured."""
    return partial(crop, padding=spec.padding, fill=spec.fill)


def make_cutout(spec: Cutout, mean: Sequence[float] | None) -> Augment:
    """Return `cutout` as configured."""
    return partial(cutout, size=spec.size, mean=mean)


def make_color_jitter(spec: ColorJitter, _mean: Sequence[float] | None) -> Augment:
    """Return `color_jitter` as configured."""
    return partial(
        color_jitter, brightness=spec.brightness, contrast=spec.contrast, saturation=spec.saturation
    )


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
            "use less padding or `fill: zero`",
            code="MIM-D060",
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
    # From pageable memory without waiting: a plain copy would block the host until the GPU is idle.
    levels_C = torch.tensor(levels, dtype=pixels_NCHW.dtype).to(pixels_NCHW.device, non_blocking=True)
    return levels_C[:, None, None]


def color_jitter(
    pixels_NCHW: Tensor,
    draws: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
) -> Tensor:
    """Scale brightness, then contrast, then saturation of each image.

    Each factor is uniform in [max(0, 1 - strength), 1 + strength]: brightness moves between the image and
    black, contrast between it and its mean grey, saturation between it and its own grey version. uint8
    images are rounded and clamped to 0…255 at the end; floats are read as intensities whose black is 0, and
    are not clamped. Saturation leaves images that are not RGB as they are.
    """
    unit_3N111 = torch.rand(3, len(pixels_NCHW), 1, 1, 1, generator=draws, device=pixels_NCHW.device)
    values_NCHW = pixels_NCHW.float() * _factor(unit_3N111[0], brightness)
    mean_N111 = grey(values_NCHW).mean((2, 3), keepdim=True)
    _scale_about(mean_N111, values_NCHW, _factor(unit_3N111[1], contrast))
    if values_NCHW.shape[1] == len(_LUMA):
        _scale_about(grey(values_NCHW), values_NCHW, _factor(unit_3N111[2], saturation))
    if pixels_NCHW.is_floating_point():
        return values_NCHW.to(pixels_NCHW.dtype)
    return values_NCHW.round_().clamp_(0, 255).to(pixels_NCHW.dtype)


def _factor(unit_N111: Tensor, strength: float) -> Tensor:
    low = max(0.0, 1.0 - strength)
    return low + unit_N111 * (1.0 + strength - low)


def _scale_about(center: Tensor, values_NCHW: Tensor, factor_N111: Tensor) -> None:
    """Write center + (values - center)·factor into the values."""
    values_NCHW.mul_(factor_N111).add_(center * (1.0 - factor_N111))


def grey(values_NCHW: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W) of RGB images, the mean over channels of others."""
    if values_NCHW.shape[1] != len(_LUMA):
        return values_NCHW.mean(1, keepdim=True)
    grey_N1HW = _LUMA[0] * values_NCHW[:, 0, None]
    for channel, weight in enumerate(_LUMA[1:], start=1):
        grey_N1HW.add_(values_NCHW[:, channel, None], alpha=weight)
    return grey_N1HW
