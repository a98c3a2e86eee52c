"""Mixup and cutmix: each image is blended with, or patched from, another of its batch; so are the targets.

Every image draws its own share λ ~ Beta(α, α) and all are handled in one step, without reading a value back
to the host. Shapes: N images, K classes.
"""

import torch
from torch import Tensor


def mixup(
    images_NCHW: Tensor, target_NK: Tensor, alpha: float, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image with another, λ·x + (1 - λ)·x', and their targets likewise.

    Zhang et al., arXiv 1710.09412.

    Targets are class probabilities, one-hot before mixing; alpha > 0.
    """
    share_N = _beta(len(images_NCHW), alpha, draws, images_NCHW.device)
    other_N = _partners(len(images_NCHW), draws, images_NCHW.device)
    share_N111 = share_N[:, None, None, None].to(images_NCHW.dtype)
    mixed_NCHW = torch.lerp(images_NCHW[other_N], images_NCHW, share_N111)
    return mixed_NCHW, _blend(target_NK, other_N, share_N)


def cutmix(
    images_NCHW: Tensor, target_NK: Tensor, alpha: float, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Put a rectangle of another image into each image; targets blend by the area each of them fills.

    Yun et al., arXiv 1905.04899: the rectangle has the image's proportions and the share 1 - λ of its area,
    its centre is anywhere, and parts beyond the border are clipped.

    Targets are class probabilities, one-hot before mixing; alpha > 0.
    """
    count, _, height, width = images_NCHW.shape
    device = images_NCHW.device
    side_N = (1.0 - _beta(count, alpha, draws, device)).sqrt()
    other_N = _partners(count, draws, device)
    center_2N = torch.rand(2, count, generator=draws, device=device)
    inside_NH = _span(center_2N[0], side_N, height)
    inside_NW = _span(center_2N[1], side_N, width)
    inside_NHW = inside_NH[:, :, None] & inside_NW[:, None, :]
    mixed_NCHW = torch.where(inside_NHW[:, None], images_NCHW[other_N], images_NCHW)
    share_N = 1.0 - inside_NHW.float().mean((1, 2))
    return mixed_NCHW, _blend(target_NK, other_N, share_N)


def _beta(count: int, alpha: float, draws: torch.Generator, device: torch.device) -> Tensor:
    """Draw from Beta(α, α) as a share of two gamma draws; `torch.distributions` takes no generator."""
    gamma_2N = torch._standard_gamma(torch.full((2, count), alpha, device=device), draws)  # noqa: SLF001
    gamma_2N = gamma_2N.clamp_min(torch.finfo(gamma_2N.dtype).tiny)
    return gamma_2N[0] / gamma_2N.sum(0)


def _partners(count: int, draws: torch.Generator, device: torch.device) -> Tensor:
    return torch.randperm(count, generator=draws, device=device)


def _span(center_N: Tensor, share_N: Tensor, side: int) -> Tensor:
    """Return the mask (N, side) of the pixels within `share`·side of each other around a centre."""
    index = torch.arange(side, device=center_N.device)
    extent_N1 = (share_N * side).round()[:, None]
    start_N1 = ((center_N * side)[:, None] - extent_N1 / 2).round()
    return (index >= start_N1) & (index < start_N1 + extent_N1)


def _blend(target_NK: Tensor, other_N: Tensor, share_N: Tensor) -> Tensor:
    return torch.lerp(target_NK[other_N], target_NK, share_N[:, None].to(target_NK.dtype))
