"""Statistics: equal to SciPy's paired test, honest where there is too little to say."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mimetic.study.comparing.statistics import (
    Difference,
    Summary,
    epochs_to_reach,
    median_or_never,
    paired_difference,
    summary,
)

VALUES = st.floats(-100.0, 100.0).map(lambda value: round(value, 3))


def test_a_summary_divides_by_n_minus_one() -> None:
    """1, 2, 3, 4: variance 5/3."""
    assert summary([1.0, 2.0, 3.0, 4.0]) == Summary(4, 2.5, math.sqrt(5 / 3))


def test_a_summary_of_little_says_little() -> None:
    """One value has no scatter, none has no mean."""
    assert summary([3.0]) == Summary(1, 3.0, None)
    assert summary([]) == Summary(0, None, None)


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
