"""False verdicts and coverage of intervals, on simulated studies."""

import math

import pytest

from benchmarks.calibration import EFFECTS, NULL, STUDIES, Setting, coverage, false_verdicts


def error(studies: int) -> float:
    """Return three binomial standard errors at 5 %."""
    return 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.fixture(autouse=True)
def only_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the intervals of single arms, which no verdict takes, and half of the time."""
    monkeypatch.setattr("mimetic.study.comparing.comparison._interval", lambda _strata: None)


def test_a_slice() -> None:
    """Sixty studies with two data sets: a gross mistake would show."""
    setting = Setting(2, 3, (0.0, 0.0), (1.0, 1.0))

    assert false_verdicts(setting, 60) <= 0.05 + error(60)
    assert coverage(setting, 60) >= 0.95 - error(60)


@pytest.mark.slow
@pytest.mark.parametrize("setting", NULL, ids=lambda setting: setting.name)
def test_false_verdicts_are_rare_if_all_arms_are_equal(setting: Setting) -> None:
    """In at most 5 % of studies, within three standard errors."""
    assert false_verdicts(setting) <= 0.05 + error(STUDIES)


@pytest.mark.slow
@pytest.mark.parametrize("setting", EFFECTS, ids=lambda setting: setting.name)
def test_intervals_cover_the_true_difference(setting: Setting) -> None:
    """93 to 97 % of 2,000 simulated studies, of one data set and of several."""
    assert coverage(setting) == pytest.approx(0.95, abs=0.02 + error(STUDIES) / 3)
