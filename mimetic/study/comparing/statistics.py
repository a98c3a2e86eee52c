"""Statistics of a comparison over seeds: means, paired differences with intervals, epochs to a target.

Arms share data order, augmentation and the values of all parameters their rules do not name, seed by
seed. So the difference is taken within seeds, which removes what the seed alone does to both.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mimetic.analysis.interval import LEVEL, half_width


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and scatter of one figure over seeds.

    Attributes:
        n: Number of values.
        mean: Their mean; None without values.
        std: Standard deviation with n - 1 in the denominator; None below two values.
    """

    n: int
    mean: float | None
    std: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences with its two-sided t interval.

    Attributes:
        n: Number of pairs.
        mean: Mean difference; None without pairs.
        low: Lower end of the interval; None below two pairs.
        high: Upper end of the interval; None below two pairs.
        p: Two-sided p-value of the hypothesis that the mean is zero; None below two pairs.
        reason: Why there is no interval, where there is none.
    """

    n: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str | None = None


def summary(values: Sequence[float]) -> Summary:
    """Return number, mean and standard deviation (n - 1) of some values."""
    if not values:
        return Summary(0, None, None)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), std)


def paired_difference(
    values: Sequence[float], others: Sequence[float], *, level: float = LEVEL
) -> Difference:
    """Return the mean of `values - others`, pair by pair, with its t interval.

    mean ± t(n - 1, (1 + level)/2) · s/√n, with s the standard deviation of the differences (Student's
    paired test). Differences that are all equal give an interval of zero width.

    Args:
        values: One value for each pair.
        others: Their partners, in the same order.
        level: Coverage of the interval.

    Raises:
        ValueError: If the two have different lengths.
    """
    differences = [a - b for a, b in zip(values, others, strict=True)]
    n = len(differences)
    if n == 0:
        return Difference(0, None, reason="no seed finished in both arms")
    mean = statistics.fmean(differences)
    if n == 1:
        return Difference(1, mean, reason="one pair of seeds has no interval")
    from scipy.special import stdtr

    error = statistics.stdev(differences) / math.sqrt(n)
    if error == 0.0:
        return Difference(n, mean, mean, mean, p=1.0 if mean == 0.0 else 0.0)
    reach = half_width(differences, level=level)
    p = 2.0 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(n, mean, mean - reach, mean + reach, p)


def epochs_to_reach(
    curve: Mapping[int, float], target: float, *, higher_is_better: bool = True
) -> int | None:
    """Return the first epoch whose value is at least as good as the target, None if there is none.

    Args:
        curve: Epoch → value; epochs that were not evaluated may be missing.
        target: The value to reach.
        higher_is_better: False for losses.
    """
    sign = 1.0 if higher_is_better else -1.0
    return next((epoch for epoch in sorted(curve) if sign * curve[epoch] >= sign * target), None)


def median_or_never(epochs: Sequence[int | None]) -> float | None:
    """Return the median where None stands for never; None if the median itself is never, or of nothing."""
    if not epochs:
        return None
    middle = statistics.median([math.inf if epoch is None else epoch for epoch in epochs])
    return middle if math.isfinite(middle) else None
