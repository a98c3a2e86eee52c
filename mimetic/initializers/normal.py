"""The normal law and its truncation in float64, value for value those of torch, in 3/4 of the time.

torch draws float64 normals by Box and Muller, sixteen at a time, with a scalar logarithm, sine and cosine;
the same formula on the same uniform numbers is carried out here on whole pieces at once. The results agree to
a few units in the last place of float64: rounded to float32, one in some 10⁹ may differ.

The truncation is that of `torch.nn.init.trunc_normal_` in torch 2.15 (older ones draw otherwise): a piece is
drawn anew until each of its entries has once lain within the bounds.
"""

import math
import threading

import torch
from torch import Generator, Tensor, nn

_HALF = 8
"""torch draws sixteen uniform numbers at a time: eight that make radii, eight that make angles."""

_FARTHEST = math.sqrt(2.0 * 53.0 * math.log(2.0)) + 0.01
"""Standard deviations beyond which no value lies: torch's uniform numbers are multiples of 2⁻⁵³."""

_COMMON = 0.3
"""Share of the law within its bounds above which torch rejects by bounds, not by height."""


def normal_(tensor: Tensor, mean: float, std: float, *, generator: Generator) -> Tensor:
    """Fill a contiguous float64 tensor from N(mean, std²), as `Tensor.normal_` does.

    With u, v uniform on [0, 1): mean + √(−2·std²·log(1 − u))·(cos 2πv, sin 2πv).
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
    if min(upper - mean, mean - lower) > _FARTHEST * std:
        return tensor
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
    radius, angle, cosine = _room.of(len(radii))
    torch.sub(radii, 1.0, out=radius).neg_().log_().mul_(-2.0 * std * std).sqrt_()
    torch.mul(angles, 2.0 * math.pi, out=angle)
    torch.mul(torch.cos(angle, out=cosine), radius, out=radii)
    torch.mul(angle.sin_(), radius, out=angles)
    if mean != 0.0:
        uniform.add_(mean)


class _Room(threading.local):
    """What a thread computes in, kept from piece to piece: fresh memory costs it as much as a cosine."""

    rows = torch.empty(3, 0, _HALF, dtype=torch.float64)

    def of(self, count: int) -> tuple[Tensor, ...]:
        """Return three times so many rows, whose values are anything."""
        if self.rows.shape[1] < count:
            self.rows = torch.empty(3, count, _HALF, dtype=torch.float64)
        return self.rows[:, :count].unbind(0)


_room = _Room()


def _distribution(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))
