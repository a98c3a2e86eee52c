"""Statistics over seeds: means, corrected paired differences, power, several data sets, costs to a target.

Arms share data order, augmentation and the values of all parameters that no rule matches, seed by seed. So
differences are taken within seeds, which removes what the seed does to both arms.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

import numpy as np

LEVEL = 0.95
"""Coverage of intervals; 1 - LEVEL is the family-wise error rate of the verdicts."""

POWER = 0.8
"""Probability with which a detectable difference is found."""

MOST_SEEDS = 10_000
"""Most seeds that `seeds_needed` returns."""

RESAMPLES = 2_000
"""Samples of the bootstrap."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences with its two-sided Student's t interval.

    Over several data sets it is the interquartile mean with its bootstrap interval.

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
    if len(values) < 2:  # noqa: PLR2004
        return 0.0
    if not all(map(math.isfinite, values)):
        return math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return _critical(len(values) - 1, level) * error


def paired_difference(
    values: Sequence[float], others: Sequence[float], *, level: float = LEVEL
) -> Difference:
    """Return the mean of `values - others`, pair by pair, with Student's paired t test and interval.

    mean ± t(n - 1, (1 + level)/2) · s/√n, with s the standard deviation of the differences. Differences that
    are all equal give an interval of zero width.

    Raises:
        ValueError: If the two have different lengths.
    """
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
    return _t_test(n, center, error, n - 1, level)


def _t_test(n: int, center: float, error: float, freedom: float, level: float) -> Difference:
    """Return an estimate with Student's test and interval, of zero width where its standard error is zero."""
    from scipy.special import stdtr

    if error == 0.0:
        return Difference(n, center, center, center, p=1.0 if center == 0.0 else 0.0, level=level)
    reach = _critical(freedom, level) * error
    p = 2.0 * float(stdtr(freedom, -abs(center) / error))
    return Difference(n, center, center - reach, center + reach, p, level=level)


def _critical(freedom: float, level: float) -> float:
    """Return t(ν, (1 + level)/2), the quantile of Student's distribution that bounds an interval."""
    from scipy.special import stdtrit  # `scipy.stats` takes more than a second to import

    return float(stdtrit(freedom, (1.0 + level) / 2.0))


def holm(
    p_values: Mapping[Key, float], *, level: float = LEVEL, others: int = 0
) -> dict[Key, tuple[float, float]]:
    """Correct several tests by Holm's step-down method (Scand. J. Statist. 6, 1979, 65-70).

    The i-th smallest of m p-values (i from 1) is tested at α/(m - i + 1), α = 1 - level, until one is not
    significant; so the probability of any false rejection is at most α, whatever the tests' dependence. Tests
    that were left out, whatever the reason, are `others`: they count as not significant.

    Returns:
        For each test its adjusted p-value, which is at most α exactly if the test rejects, and the coverage
        1 - α/(m - i + 1) of the interval that excludes zero exactly then. Tests after the first that is not
        significant share that one's coverage. Each interval contains the uncorrected one, so it covers its
        true difference with a probability of at least `level`; the intervals do not cover simultaneously.
    """
    alpha, count = 1.0 - level, len(p_values) + others
    found: dict[Key, tuple[float, float]] = {}
    adjusted, rejected = 0.0, 0
    for index, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        adjusted = max(adjusted, min(1.0, (count - index) * p_values[key]))
        found[key] = (adjusted, 1.0 - alpha / (count - rejected))
        rejected += adjusted <= alpha
    return found


def corrected(
    plain: Mapping[Key, Difference],
    widen: Callable[[Key, float], Difference],
    *,
    level: float,
    others: int = 0,
) -> dict[Key, Difference]:
    """Return differences with p-values and intervals corrected by Holm's method; see `holm`.

    `widen` returns one of them at another level. Those without a p-value are not tested and do not count.
    1 - level is the family-wise error rate.
    """
    p_values = {key: found.p for key, found in plain.items() if found.p is not None}
    tests = holm(p_values, level=level, others=others)
    return {**plain} | {
        key: replace(widen(key, own_level), p_holm=p_holm) for key, (p_holm, own_level) in tests.items()
    }


def detectable_difference(
    scatter: float, n: int, *, level: float = LEVEL, power: float = POWER
) -> float | None:
    """Return the smallest true difference that a paired t test of n pairs finds with a given power.

    δ·s/√n with F(t; n - 1, δ) = 1 - power, F the distribution function of Student's noncentral t and
    t = t(n - 1, (1 + level)/2) the critical value (Cohen, Statistical Power Analysis, 1988, ch. 2).

    Args:
        scatter: Standard deviation s of the paired differences.
        n: Number of pairs.
        level: 1 minus the level of the test; with m tests, 1 - α/m.
        power: Probability of finding the difference.

    Returns:
        A positive number; None below two pairs.
    """
    from scipy.special import nctdtrinc

    if n < 2:  # noqa: PLR2004
        return None
    return float(nctdtrinc(n - 1, 1.0 - power, _critical(n - 1, level))) * scatter / math.sqrt(n)


def seeds_needed(scatter: float, difference: float, *, level: float = LEVEL) -> int | None:
    """Return the smallest number of pairs at which a difference can be detected; None above 10,000.

    See `detectable_difference`, which decreases with n.
    """

    def too_few(n: int) -> bool:
        found = detectable_difference(scatter, n, level=level)
        return found is None or found > difference

    n = bisect_left(range(MOST_SEEDS + 1), x=True, lo=2, key=lambda n: not too_few(n))
    return n if n <= MOST_SEEDS else None


def probability_of_improvement(
    strata: Sequence[tuple[Sequence[float], Sequence[float]]], *, higher_is_better: bool = True
) -> float | None:
    """Return the probability that a run of an arm is better than a run of the baseline.

    Over all pairs of one value of the arm and one of the baseline in the same data set, ties counting half:
    the Mann-Whitney statistic U/(m·n), averaged over data sets (Agarwal et al., arXiv 2108.13264, eq. 2).
    None if no data set has both.
    """
    shares = [
        float(np.mean((np.sign(np.subtract.outer(values, others)) + 1.0) / 2.0))
        for values, others in strata
        if len(values) > 0 and len(others) > 0
    ]
    return None if not shares else statistics.fmean(shares if higher_is_better else [1.0 - x for x in shares])


def interquartile_mean(values: "np.ndarray | Sequence[float]") -> "np.ndarray":
    """Return the mean of the middle half: ⌊n/4⌋ values are left out at each end (arXiv 2108.13264).

    Along the last axis.
    """
    ordered = np.sort(np.asarray(values, dtype=float), axis=-1)
    cut, n = ordered.shape[-1] // 4, ordered.shape[-1]
    middle: np.ndarray = ordered[..., cut : n - cut].mean(axis=-1)
    return middle


def stratified_interval(strata: Sequence[Sequence[float]], *, level: float = LEVEL) -> Difference:
    """Return the interquartile mean over data sets with the interval of a stratified bootstrap.

    IQM ± t(ν, (1 + level)/2)·s, where s is the standard deviation of the IQM over 2,000 samples, drawn with
    replacement within each data set. Deviations from a data set's mean are enlarged by √(n/(n - 1)), without
    which the bootstrap's variance of a mean is too small by (n - 1)/n (Rao and Wu, J. Am. Stat. Assoc. 83,
    1988), and ν are Satterthwaite's degrees of freedom. Percentile intervals of three to five seeds are too
    narrow. The samples are drawn from a fixed seed: equal values have equal intervals.

    Args:
        strata: The values of each data set. Those with one value have no known scatter and are refused.
        level: Coverage of the interval.
    """
    values = [np.asarray(stratum, dtype=float) for stratum in strata if len(stratum) > 0]
    pooled = np.concatenate(values) if values else np.zeros(0)
    n = len(pooled)
    if n == 0:
        return Difference(0, None, reason="too few seeds")
    if not np.isfinite(pooled).all():
        return Difference(n, float(np.mean(pooled)), reason="a value is not finite")
    center = float(interquartile_mean(pooled))
    if min(map(len, values)) < 2:  # noqa: PLR2004
        return Difference(n, center, reason="one seed of a data set has no interval")
    error = _bootstrap_error(tuple(tuple(stratum.tolist()) for stratum in values))
    if error <= 1e-12 * max(1.0, abs(center)):  # rounding
        return _t_test(n, center, 0.0, math.inf, level)
    return _t_test(n, center, error, _satterthwaite(values), level)


@lru_cache(maxsize=256)  # the level of an interval depends on the p-values of all
def _bootstrap_error(strata: tuple[tuple[float, ...], ...]) -> float:
    """Return the standard deviation of the interquartile mean over samples within strata."""
    enlarged = []
    for stratum in strata:
        values, n = np.asarray(stratum), len(stratum)
        enlarged.append(values.mean() + (values - values.mean()) * math.sqrt(n / (n - 1)))
    samples = np.concatenate(enlarged).take(_resamples(tuple(map(len, strata))))
    return float(interquartile_mean(samples).std())


@lru_cache(maxsize=4)
def _resamples(sizes: tuple[int, ...]) -> "np.ndarray":
    """Return which of all values the samples of strata of these sizes take, a sample per row."""
    rng, before = np.random.default_rng(0), accumulate(sizes, initial=0)
    return np.concatenate(
        [start + rng.integers(n, size=(RESAMPLES, n)) for n, start in zip(sizes, before, strict=False)],
        axis=1,
    )


def _satterthwaite(strata: "Sequence[np.ndarray]") -> float:
    """Return the degrees of freedom of the pooled mean's variance Σ n_k s_k² / N²."""
    parts = np.array([len(values) * values.var(ddof=1) for values in strata])
    degrees = np.array([len(values) - 1 for values in strata])
    return float(parts.sum() ** 2 / (parts**2 / degrees).sum())


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
