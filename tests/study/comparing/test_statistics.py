"""Statistics: equal to SciPy's paired test, honest where there is too little to say."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mimetic.study.comparing.statistics import (
    Difference,
    corrected,
    detectable_difference,
    epochs_to_reach,
    half_width,
    holm,
    interquartile_mean,
    mean,
    median_or_never,
    paired_difference,
    probability_of_improvement,
    seeds_needed,
    std,
    stratified_interval,
)

VALUES = st.floats(-100.0, 100.0).map(lambda value: round(value, 3))


def test_mean_and_scatter() -> None:
    """1, 2, 3, 4: variance 5/3; one value has no scatter, none has no mean."""
    assert (mean([1.0, 2.0, 3.0, 4.0]), std([1.0, 2.0, 3.0, 4.0])) == (2.5, math.sqrt(5 / 3))
    assert (mean([3.0]), std([3.0]), mean([]), std([])) == (3.0, None, None, None)


@given(st.lists(VALUES, min_size=2, max_size=12), st.sampled_from([0.9, 0.95, 0.99]))
def test_half_widths_are_scipys(values: list[float], level: float) -> None:
    """Student's t interval of a mean."""
    assume(np.std(values) > 1e-6)
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))

    assert half_width(values, level=level) == pytest.approx((high - low) / 2, rel=1e-6)


def test_half_widths_of_little() -> None:
    """One value has none, and what is not finite has no number."""
    assert half_width([1.0]) == 0.0
    assert math.isnan(half_width([1.0, math.inf]))


def test_a_paired_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, s = 1; with two degrees of freedom t(q) = (2q - 1)/√(2q(1 - q))."""
    found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])

    reach = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert (found.n, found.mean, found.reason) == (3, 2.0, None)
    assert found.low == pytest.approx(2.0 - reach, abs=1e-12)
    assert found.high == pytest.approx(2.0 + reach, abs=1e-12)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=12))
def test_intervals_and_p_values_are_scipys(pairs: list[tuple[float, float]]) -> None:
    """Student's paired test, whatever the values."""
    values, others = (list(column) for column in zip(*pairs, strict=True))
    assume(np.std(np.subtract(values, others)) > 1e-6)

    found = paired_difference(values, others)

    expected = stats.ttest_rel(values, others)
    interval = expected.confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert found.high == pytest.approx(interval.high, rel=1e-6, abs=1e-6)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


def test_equal_differences_give_an_interval_of_zero_width() -> None:
    """No scatter: nothing is divided by zero."""
    assert paired_difference([2.0, 3.0], [1.0, 2.0]) == Difference(2, 1.0, 1.0, 1.0, p=0.0)
    assert paired_difference([2.0, 3.0], [2.0, 3.0]) == Difference(2, 0.0, 0.0, 0.0, p=1.0)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    """The reason is told."""
    assert paired_difference([2.0], [1.0]) == Difference(1, 1.0, reason="one pair of seeds has no interval")


def test_no_pair_has_nothing() -> None:
    """The reason is told."""
    assert paired_difference([], []) == Difference(0, None, reason="no seed finished in both arms")


def test_pairs_must_be_pairs() -> None:
    """Lists of different length were not paired by anyone."""
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0, 2.0], [1.0])


def corrected_differences(pairs: dict[str, tuple[list[float], list[float]]]) -> dict[str, Difference]:
    """Return the corrected difference of each pair of arms."""
    plain = {key: paired_difference(*both) for key, both in pairs.items()}
    return corrected(plain, lambda key, level: paired_difference(*pairs[key], level=level), level=0.95)


def test_values_that_are_not_finite_are_not_tested() -> None:
    """They have no interval, and the reason is given."""
    found = corrected_differences({"a": ([math.inf, 1.0], [0.0, 0.0]), "b": ([2.0, 3.1], [1.0, 2.0])})

    assert (found["a"].p, found["a"].reason) == (None, "a value is not finite")
    assert found["b"].level == 0.95


def test_holm_by_hand() -> None:
    """Of p = 0.01, 0.04, 0.03, 0.005: Holm (1979) multiplies by 4, 3, 2, 1 in ascending order."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})

    assert {key: pytest.approx(p) for key, (p, _) in found.items()} == {
        "d": 0.02,
        "a": 0.03,
        "c": 0.06,
        "b": 0.06,
    }
    assert {key: pytest.approx(level) for key, (_, level) in found.items()} == {
        "d": 1 - 0.05 / 4,
        "a": 1 - 0.05 / 3,
        "c": 1 - 0.05 / 2,
        "b": 1 - 0.05 / 2,
    }


PAIRS = st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=6)


@given(PAIRS)
def test_intervals_exclude_zero_exactly_if_holm_rejects(arms: list[list[float]]) -> None:
    """Interval and verdict never contradict each other, and no interval is narrower than the plain one."""
    assume(all(np.std(values) > 1e-6 for values in arms))
    pairs = {str(number): (values, [0.0] * 3) for number, values in enumerate(arms)}

    for key, found in corrected_differences(pairs).items():
        plain = paired_difference(*pairs[key])
        assert found.low is not None
        assert found.high is not None
        assert found.p_holm is not None
        assert plain.low is not None
        assert plain.high is not None
        assert (found.low > 0 or found.high < 0) == (found.p_holm < 0.05)
        assert found.low <= plain.low + 1e-9
        assert found.high >= plain.high - 1e-9


@pytest.mark.parametrize(
    ("arms", "seeds"),
    [(2, 3), pytest.param(12, 4, marks=pytest.mark.slow), pytest.param(24, 4, marks=pytest.mark.slow)],
)
def test_false_verdicts_are_rare_if_all_arms_are_equal(arms: int, seeds: int) -> None:
    """In at most 5 % of studies any arm is better or worse, within three binomial standard errors.

    The arms share the baseline, as in a study; without a correction every second study of 24 arms has one.
    """
    studies, rng = 1000, np.random.default_rng(20261129)
    false, uncorrected = 0, 0
    for _ in range(studies):
        values = rng.standard_normal((arms + 1, seeds)).tolist()
        found = corrected_differences({str(n): (values[n], values[-1]) for n in range(arms)}).values()
        false += any(difference.p_holm <= 0.05 for difference in found if difference.p_holm is not None)
        uncorrected += any(difference.p <= 0.05 for difference in found if difference.p is not None)

    assert false / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert uncorrected / studies > (0.3 if arms > 2 else 0.06)


@pytest.mark.parametrize(
    ("curve", "target", "higher", "expected"),
    [
        ({0: 0.1, 1: 0.5, 2: 0.9}, 0.5, True, 1),
        ({0: 0.1, 2: 0.9, 1: 0.4}, 0.5, True, 2),
        ({0: 0.1, 1: 0.6, 2: 0.3}, 0.5, True, 1),
        ({0: 0.1, 1: 0.2}, 0.5, True, None),
        ({0: 2.0, 1: 1.0, 2: 0.4}, 0.5, False, 2),
        ({}, 0.5, True, None),
    ],
)
def test_epochs_to_reach(curve: dict[int, float], target: float, higher: bool, expected: int | None) -> None:
    """The first epoch at least as good, in order of epochs."""
    assert epochs_to_reach(curve, target, higher_is_better=higher) == expected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ([3, 5, 4], 4.0),
        ([3, 4], 3.5),
        ([3, None, 5], 5.0),
        ([3, None, None], None),
        ([3, None], None),
        ([], None),
    ],
)
def test_the_median_counts_seeds_that_never_reach(epochs: list[int | None], expected: float | None) -> None:
    """Leaving them out would flatter an arm that fails half the time."""
    assert median_or_never(epochs) == expected


@pytest.mark.parametrize(("n", "level"), [(3, 0.95), (5, 0.95), (5, 0.9875), (20, 0.95)])
def test_a_detectable_difference_is_detected_with_its_power(n: int, level: float) -> None:
    """At 80 % in simulated studies, within four binomial standard errors."""
    difference, rng = detectable_difference(2.0, n, level=level), np.random.default_rng(20261130)
    assert difference is not None
    p = stats.ttest_1samp(difference + 2.0 * rng.standard_normal((4000, n)), 0.0, axis=1).pvalue

    assert np.mean(p <= 1 - level) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 4000))


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_the_seeds_needed_are_the_fewest(scatter: float, difference: float) -> None:
    """One fewer detects only a larger difference."""
    n = seeds_needed(scatter, difference)

    if n is not None:
        found, fewer = detectable_difference(scatter, n), detectable_difference(scatter, n - 1)
        assert found is not None
        assert found <= difference
        assert fewer is None or fewer > difference


def test_what_no_number_of_seeds_detects() -> None:
    """None beyond 10,000 seeds; one seed detects nothing; without scatter two are enough."""
    assert seeds_needed(1.0, 1e-3) is None
    assert detectable_difference(1.0, 1) is None
    assert seeds_needed(0.0, 1.0) == 2


@given(st.lists(VALUES, min_size=1, max_size=8), st.lists(VALUES, min_size=1, max_size=8))
def test_the_probability_of_improvement_is_mann_whitneys(values: list[float], others: list[float]) -> None:
    """U/(m·n), ties half; lower is better turns it around."""
    expected = stats.mannwhitneyu(values, others, method="asymptotic").statistic / len(values) / len(others)

    assert probability_of_improvement([(values, others)]) == pytest.approx(expected)
    assert probability_of_improvement([(values, others)], higher_is_better=False) == pytest.approx(
        1 - expected
    )
    assert probability_of_improvement([([], others)]) is None


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_the_interquartile_mean_is_scipys(values: list[float]) -> None:
    """The mean trimmed by a quarter at each end."""
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)


def test_one_data_set_of_three_seeds_has_students_interval() -> None:
    """No value is trimmed of three, and the bootstrap's standard error is that of the mean, within 3 %."""
    values = [1.0, 2.5, 3.0]
    found, expected = stratified_interval([values]), paired_difference(values, [0.0] * 3)

    assert (found.n, found.mean) == (3, pytest.approx(expected.mean))
    assert found.low is not None
    assert expected.low is not None
    assert found.low - 6.5 / 3 == pytest.approx(expected.low - 6.5 / 3, rel=0.03)


@pytest.mark.parametrize(
    ("strata", "reason"),
    [
        ([], "too few seeds"),
        ([[1.0], [1.0, 2.0]], "one seed of a data set has no interval"),
        ([[1.0, math.inf], [1.0, 2.0]], "a value is not finite"),
    ],
)
def test_data_sets_without_an_interval(strata: list[list[float]], reason: str) -> None:
    """The reason is given, and nothing is tested."""
    found = stratified_interval(strata)
    assert (found.p, found.reason) == (None, reason)


def test_data_sets_without_scatter() -> None:
    """An interval of zero width, as for one data set."""
    assert stratified_interval([[1.0, 1.0], [1.0, 1.0]]) == Difference(4, 1.0, 1.0, 1.0, p=0.0)
