"""Statistics over seeds: means, paired differences corrected for several arms, epochs to a target.

Arms share data order, augmentation and the values of all parameters that no rule matches, seed by seed. So
differences are taken within seeds, which removes what the seed does to both arms.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

LEVEL = 0.95
"""Coverage of intervals; 1 - LEVEL is the family-wise error rate of the verdicts."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences with its two-sided Student's t interval.

    Attributes:
        n: Number of pairs.
        mean: Mean difference; None without pairs.
        low: Lower end of the interval; None below two pairs.
        high: Upper end of the interval; None below two pairs.
        p: Two-sided p-value of a mean of zero; None below two pairs.
        p_holm: The p-value adjusted for the number of arms by Holm's method.
        level: Coverage of the interval.
        reason: Why there is no interval.
    """

    n: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    level: float = LEVEL
    reason: str | None = None


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None without values."""
    return statistics.fmean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Return the standard deviation with n - 1 in the denominator, None below two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def half_width(values: Sequence[float], *, level: float = LEVEL) -> float:
    """Return t(n - 1, (1 + level)/2)·s/√n, half the width of the mean's t interval.

    One value gives 0; a value that is not finite gives NaN.
    """
    from scipy.special import stdtrit  # `scipy.stats` takes more than a second to import

    if len(values) < 2:  # noqa: PLR2004
        return 0.0
    if not all(map(math.isfinite, values)):
        return math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stdtrit(len(values) - 1, (1.0 + level) / 2.0)) * error


def paired_difference(
    values: Sequence[float], others: Sequence[float], *, level: float = LEVEL
) -> Difference:
    """Return the mean of `values - others`, pair by pair, with Student's paired t test and interval.

    mean ± t(n - 1, (1 + level)/2) · s/√n, with s the standard deviation of the differences. Differences that
    are all equal give an interval of zero width.

    Raises:
        ValueError: If the two have different lengths.
    """
    from scipy.special import stdtr

    differences = [a - b for a, b in zip(values, others, strict=True)]
    n = len(differences)
    if n == 0:
        return Difference(0, None, reason="no seed finished in both arms")
    center = statistics.fmean(differences)
    if n == 1:
        return Difference(1, center, reason="one pair of seeds has no interval")
    if not math.isfinite(center):
        return Difference(n, center, reason="a value is not finite")
    error = statistics.stdev(differences) / math.sqrt(n)
    if error == 0.0:
        return Difference(n, center, center, center, p=1.0 if center == 0.0 else 0.0, level=level)
    reach = half_width(differences, level=level)
    p = 2.0 * float(stdtr(n - 1, -abs(center) / error))
    return Difference(n, center, center - reach, center + reach, p, level=level)


def holm(p_values: Mapping[str, float], *, level: float = LEVEL) -> dict[str, tuple[float, float]]:
    """Correct several tests by Holm's step-down method (Scand. J. Statist. 6, 1979, 65-70).

    The i-th smallest of m p-values (i from 1) is tested at α/(m - i + 1), α = 1 - level, until one is not
    significant; so the probability of any false rejection is at most α, whatever the tests' dependence.

    Returns:
        For each test its adjusted p-value, which is at most α exactly if the test rejects, and the coverage
        1 - α/(m - i + 1) of the interval that excludes zero exactly then. Tests after the first that is not
        significant share that one's coverage. Each interval contains the uncorrected one, so it covers its
        true difference with a probability of at least `level`; the intervals do not cover simultaneously.
    """
    alpha, count = 1.0 - level, len(p_values)
    found: dict[str, tuple[float, float]] = {}
    adjusted, rejected = 0.0, 0
    for index, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        adjusted = max(adjusted, min(1.0, (count - index) * p_values[key]))
        found[key] = (adjusted, 1.0 - alpha / (count - rejected))
        rejected += adjusted <= alpha
    return found


def corrected_differences(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, level: float = LEVEL
) -> dict[str, Difference]:
    """Return the paired difference of each arm, with p-values and intervals corrected by Holm's method.

    `pairs` is arm → its values and those of the baseline, pair by pair. Arms with fewer than two pairs are
    not tested and do not count. 1 - level is the family-wise error rate.
    """
    plain = {key: paired_difference(*both, level=level) for key, both in pairs.items()}
    tests = holm({key: found.p for key, found in plain.items() if found.p is not None}, level=level)
    return plain | {
        key: replace(paired_difference(*pairs[key], level=own_level), p_holm=p_holm)
        for key, (p_holm, own_level) in tests.items()
    }


def epochs_to_reach(
    curve: Mapping[int, float], target: float, *, higher_is_better: bool = True
) -> int | None:
    """Return the first epoch whose value is at least as good as the target, None if there is none.

    Epochs that were not evaluated may be missing.
    """
    sign = 1.0 if higher_is_better else -1.0
    return next((epoch for epoch in sorted(curve) if sign * curve[epoch] >= sign * target), None)


def median_or_never(epochs: Sequence[int | None]) -> float | None:
    """Return the median where None means never; None if the median is never, or there is no value."""
    if not epochs:
        return None
    middle = statistics.median([math.inf if epoch is None else epoch for epoch in epochs])
    return middle if math.isfinite(middle) else None
