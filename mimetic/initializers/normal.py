"""The normal law and its truncation in float64, value for value those of torch, in two thirds of the time.

torch draws float64 normals by Box and Muller, sixteen at a time, with a scalar logarithm, sine and cosine;
the same formula on the same uniform numbers is carried out here on whole pieces at once. The results agree to
two units in the last place of float64: rounded to float32, one in some 10¹⁰ may differ.

The truncation is that of `torch.nn.init.trunc_normal_` since torch 2.12: a piece is drawn anew until each of
its entries has once lain within the bounds.
"""

import math

import torch
from torch import Generator, Tensor, nn

_HALF = 8
"""torch draws sixteen uniform numbers at a time: eight that make radii, eight that make angles."""

_COMMON = 0.3
"""Share of the law within its bounds above which torch rejects by bounds, not by height."""


def normal_(tensor: Tensor, mean: float, std: float, *, generator: Generator) -> Tensor:
    """Fill a contiguous float64 tensor from N(mean, std²), as `Tensor.normal_` does.

    With u, v uniform on [0, 1): √(−2·log(1 − u))·(cos 2πv, sin 2πv).
    """
    flat = tensor.view(-1)
    count = flat.numel()
    if count < 2 * _HALF:  # torch draws few values one by one, by another formula
        return tensor.normal_(mean, std, generator=generator)
    flat.uniform_(generator=generator)
    _transform(flat[: count - count % (2 * _HALF)], mean, std)
    if count % (2 * _HALF):  # the last sixteen are drawn anew
        _transform(flat[-2 * _HALF :].uniform_(generator=generator), mean, std)
    return tensor


def trunc_normal_(
    tensor: Tensor, mean: float, std: float, *, lower: float, upper: float, generator: Generator
) -> Tensor:
    """Fill a contiguous float64 tensor from N(mean, std²) between bounds, as `nn.init.trunc_normal_` does."""
    if _distribution((upper - mean) / std) - _distribution((lower - mean) / std) <= _COMMON:
        return nn.init.trunc_normal_(tensor, mean, std, lower, upper, generator=generator)
    normal_(tensor, mean, std, generator=generator)
    while not _within(tensor, lower, upper):
        outside = (tensor < lower) | (tensor > upper)
        torch.where(
            outside, normal_(torch.empty_like(tensor), mean, std, generator=generator), tensor, out=tensor
        )
    return tensor


def _within(tensor: Tensor, lower: float, upper: float) -> bool:
    least, most = torch.aminmax(tensor)
    return lower <= least.item() and most.item() <= upper


def _transform(uniform: Tensor, mean: float, std: float) -> None:
    """Turn uniform numbers into normal ones in place, with as few passes as there can be."""
    radii, angles = uniform.view(-1, 2, _HALF).unbind(1)
    radius = torch.rsub(radii, 1.0).log_().mul_(-2.0).sqrt_()
    angle = torch.mul(angles, 2.0 * math.pi)
    torch.mul(torch.cos(angle), radius, out=radii)
    torch.mul(angle.sin_(), radius, out=angles)
    uniform.mul_(std)
    if mean != 0.0:
        uniform.add_(mean)


def _distribution(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))
