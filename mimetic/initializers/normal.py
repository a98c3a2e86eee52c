"""The normal distribution and its truncation in float64: torch's values, drawn in 3/4 of the time.

This module stays because weights drawn before must stay the same to the bit; new code may call torch.

torch draws float64 normals by Box and Muller, sixteen at a time, with a scalar logarithm, sine and cosine;
here the same formula runs on the same uniform numbers, a whole chunk at once. The results agree to a few
units in the last place of float64: rounded to float32, about one in 10⁹ differs. The truncation is that of
`torch.nn.init.trunc_normal_` in torch 2.15 (older versions draw otherwise): a chunk is drawn again until each
of its entries has been within the bounds once.
"""

import math
import threading

import torch
from torch import Generator, Tensor, nn

from mimetic.errors import UserError

_HALF = 8
"""torch draws sixteen uniform numbers at a time: eight that make radii, eight that make angles."""

_MAX_RADIUS = math.sqrt(2.0 * 53.0 * math.log(2.0)) + 0.01
"""Largest possible value in standard deviations: torch's uniform numbers are multiples of 2⁻⁵³."""

_COMMON = 0.3
"""Probability within the bounds above which torch rejects by bounds, not by height."""

_REACH = 2.0
"""Standard deviations by which the mean may lie outside the bounds."""

_NARROW = 1e-3


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
    if count % (2 * _HALF):  # the last sixteen are drawn again
        _transform(flat[-2 * _HALF :].uniform_(generator=generator), mean, std)
    return tensor


def trunc_normal_(
    tensor: Tensor, mean: float, std: float, *, lower: float, upper: float, generator: Generator
) -> Tensor:
    """Fill a contiguous float64 tensor from N(mean, std²) between bounds, as `nn.init.trunc_normal_` does."""
    if _cumulative((upper - mean) / std) - _cumulative((lower - mean) / std) <= _COMMON:
        return nn.init.trunc_normal_(tensor, mean, std, lower, upper, generator=generator)
    normal_(tensor, mean, std, generator=generator)
    if min(upper - mean, mean - lower) > _MAX_RADIUS * std:
        return tensor
    while not _within(tensor, lower, upper):
        outside = (tensor < lower) | (tensor > upper)
        torch.where(
            outside, normal_(torch.empty_like(tensor), mean, std, generator=generator), tensor, out=tensor
        )
    return tensor


def trunc_normal_moments(mean: float, std: float, *, lower: float, upper: float) -> tuple[float, float]:
    """Return mean and standard deviation of N(mean, std²) cut at absolute bounds.

    With α, β the bounds in units of std about the mean, φ and Φ the normal density and distribution and
    Z = Φ(β) − Φ(α): mean + std·(φ(α) − φ(β))/Z and
    std²·[1 + (αφ(α) − βφ(β))/Z − ((φ(α) − φ(β))/Z)²].

    Raises:
        UserError: If no value is within the bounds, or the mean is so far outside that torch's sampler is not
            reliable (it warns there).
    """
    if lower >= upper:
        raise UserError(f"trunc_normal needs a < b, but a is {lower} and b is {upper}", code="MIM-I004")
    low, high = (lower - mean) / std, (upper - mean) / std
    if low > _REACH or high < -_REACH:
        raise UserError(
            f"trunc_normal's mean {mean} is more than 2 std outside [{lower}, {upper}], where torch's "
            "sampler is not reliable; move the bounds or the mean",
            code="MIM-I005",
        )
    if high - low < _NARROW:
        # Flat to one part in a thousand over so narrow a window, where the formula cancels.
        return 0.5 * (lower + upper), (upper - lower) / math.sqrt(12.0)
    mass = _cumulative(high) - _cumulative(low)
    slope = (_density(low) - _density(high)) / mass
    bend = (low * _density(low) - high * _density(high)) / mass
    return mean + std * slope, std * math.sqrt(max(0.0, 1.0 + bend - slope * slope))


def _within(tensor: Tensor, lower: float, upper: float) -> bool:
    least, most = torch.aminmax(tensor)
    return lower <= least.item() and most.item() <= upper


def _transform(uniform: Tensor, mean: float, std: float) -> None:
    """Turn uniform numbers into normal ones in place, in as few passes as possible."""
    radii, angles = uniform.view(-1, 2, _HALF).unbind(1)
    radius, angle, cosine = _buffers.of(len(radii))
    torch.sub(radii, 1.0, out=radius).neg_().log_().mul_(-2.0 * std * std).sqrt_()
    torch.mul(angles, 2.0 * math.pi, out=angle)
    torch.mul(torch.cos(angle, out=cosine), radius, out=radii)
    torch.mul(angle.sin_(), radius, out=angles)
    if mean != 0.0:
        uniform.add_(mean)


class _Buffers(threading.local):
    """Buffers of each thread, reused from chunk to chunk: fresh memory costs as much as a cosine."""

    rows = torch.empty(3, 0, _HALF, dtype=torch.float64)

    def of(self, count: int) -> tuple[Tensor, ...]:
        """Return three uninitialized buffers of so many rows."""
        if self.rows.shape[1] < count:
            self.rows = torch.empty(3, count, _HALF, dtype=torch.float64)
        return self.rows[:, :count].unbind(0)


_buffers = _Buffers()


def _density(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _cumulative(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
