"""Moments of the truncated normal law as `torch.nn.init.trunc_normal_` draws it."""

import math

from mimetic.errors import UserError

_REACH = 2.0
_NARROW = 1e-3


def trunc_normal_moments(mean: float, std: float, *, lower: float, upper: float) -> tuple[float, float]:
    """Return mean and standard deviation of N(mean, std²) cut at absolute bounds.

    With α, β the bounds in units of std about the mean, φ and Φ the normal density and distribution and
    Z = Φ(β) − Φ(α): mean + std·(φ(α) − φ(β))/Z and
    std²·[1 + (αφ(α) − βφ(β))/Z − ((φ(α) − φ(β))/Z)²].

    Raises:
        UserError: If the bounds are empty, or the mean lies so far outside that torch's sampler is not
            reliable (it warns there).
    """
    if lower >= upper:
        message = f"trunc_normal needs a < b, but a is {lower} and b is {upper}"
        raise UserError(message)
    low, high = (lower - mean) / std, (upper - mean) / std
    if low > _REACH or high < -_REACH:
        message = f"trunc_normal's mean {mean} lies more than 2 std outside [{lower}, {upper}], "
        raise UserError(message + "where torch's sampler is not reliable; move the bounds or the mean")
    if high - low < _NARROW:
        # Flat to one part in a thousand over so narrow a window, where the formula cancels.
        return 0.5 * (lower + upper), (upper - lower) / math.sqrt(12.0)
    mass = _distribution(high) - _distribution(low)
    slope = (_density(low) - _density(high)) / mass
    bend = (low * _density(low) - high * _density(high)) / mass
    return mean + std * slope, std * math.sqrt(max(0.0, 1.0 + bend - slope * slope))


def _density(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _distribution(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
