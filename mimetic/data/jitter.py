"""Brightness, contrast and saturation, each image by factors of its own."""

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in Pillow and torchvision."""


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
