"""The comparison of arms, from journals to figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimetic.errors import UserError
from mimetic.metrics import metric
from mimetic.study.comparing.comparison import TrialResult, compare, finished_curves, of_study, trial_result
from mimetic.study.comparing.statistics import Difference


def journaled(
    *accuracies: float, status: str = "FINISHED", seconds: float | None = 2.0
) -> list[dict[str, Any]]:
    """Return the journal of a trial with an accuracy per epoch, from epoch 0."""
    events: list[dict[str, Any]] = [{"event": "start", "time": 0.0}]
    for epoch, accuracy in enumerate(accuracies):
        metrics = {"test/acc": accuracy, "test/loss": 1.0 - accuracy}
        if seconds is not None and epoch > 0:
            metrics["epoch_seconds"] = seconds
        events.append({"event": "epoch", "time": 1.0, "epoch": epoch, "metrics": metrics})
    events.append({"event": "end", "time": 2.0, "status": status, "reason": None, "seconds": 9.0})
    return events


def trial(arm: str, seed: int, *accuracies: float, **options: Any) -> TrialResult:
    """Return the result of a trial with an accuracy per epoch, from epoch 0."""
    return trial_result(arm, seed, journaled(*accuracies, **options))


STUDY = [
    trial("default", 0, 0.125, 0.25, 0.5),
    trial("closed-form", 0, 0.125, 0.5, 0.75),
    trial("default", 1, 0.125, 0.25, 0.75),
    trial("closed-form", 1, 0.125, 0.75, 0.875),
]


def test_arms_are_compared_in_percent() -> None:
    """Journals hold fractions; means and differences are percent, paired by seed."""
    found = compare(STUDY, baseline="default", metric="test/acc")

    default, closed = found.rows
    assert (found.metric.unit, found.metric.direction) == ("%", "higher")
    assert (default.arm, default.values, default.mean) == ("default", {0: 50.0, 1: 75.0}, 62.5)
    assert (closed.values, closed.mean) == ({0: 75.0, 1: 87.5}, 81.25)
    assert default.difference is None
    assert closed.difference is not None
    assert (closed.difference.n, closed.difference.mean) == (2, 18.75)
    assert default.std == pytest.approx(25.0 / 2**0.5)


def test_losses_stay_as_they_are_and_less_is_better() -> None:
    """The sign of the difference is the metric's; the verdict knows what is good."""
    trials = [trial(a, s, x) for s in (0, 1) for a, x in (("default", 0.25), ("good", 0.75), ("bad", 0.125))]

    found = compare(trials, baseline="default", metric="test/loss")

    assert (found.metric.unit, found.metric.direction) == ("", "lower")
    assert found.row("good").difference == Difference(2, -0.5, -0.5, -0.5, p=0.0, p_holm=0.0, level=0.975)
    assert [row.verdict for row in found.rows] == [None, "better", "worse"]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [((0.76, 0.75, 0.77), "better"), ((0.24, 0.25, 0.23), "worse"), ((0.1, 0.9, 0.5), "inconclusive")],
)
def test_the_verdict_is_what_the_interval_says(accuracies: tuple[float, ...], expected: str) -> None:
    """Better or worse only where the interval leaves zero out."""
    trials = [trial("default", seed, 0.5) for seed in range(3)]
    trials += [trial("arm", seed, value) for seed, value in enumerate(accuracies)]

    assert compare(trials, baseline="default", metric="test/acc").row("arm").verdict == expected


def test_probe_accuracies_are_accuracies() -> None:
    """`test/acc_len64` is in percent and more is better, as `test/acc` is."""
    events = [
        {"event": "start", "time": 0.0},
        {"event": "epoch", "time": 0.0, "epoch": 1, "metrics": {"test/acc_len64": 0.5}},
        {"event": "end", "time": 0.0, "status": "FINISHED"},
    ]

    found = compare([trial_result("default", 0, events)], baseline="default", metric="test/acc_len64")

    assert (found.metric.unit, found.metric.direction, found.rows[0].mean) == ("%", "higher", 50.0)


def test_verdicts_are_corrected_for_the_number_of_arms() -> None:
    """A difference that is significant alone is inconclusive beside others; its interval agrees."""
    accuracies = {"default": (0.5, 0.5, 0.5), "arm": (0.515, 0.52, 0.525)}
    accuracies |= {f"other-{n}": (0.1, 0.9, 0.5 + n / 100) for n in range(3)}
    trials = [trial(arm, seed, x) for arm, values in accuracies.items() for seed, x in enumerate(values)]

    alone = compare([t for t in trials if "other" not in t.arm], baseline="default", metric="test/acc")
    beside = compare(trials, baseline="default", metric="test/acc")

    assert (alone.comparisons, beside.comparisons) == (1, 4)
    assert (alone.row("arm").verdict, beside.row("arm").verdict) == ("better", "inconclusive")
    one, four = alone.row("arm").difference, beside.row("arm").difference
    assert one is not None
    assert one.low is not None
    assert one.low > 0
    assert four is not None
    assert four.low is not None
    assert four.low < 0 < one.low
    assert (one.p, four.level) == (four.p, 0.9875)


def test_a_metric_without_a_direction_has_no_winner() -> None:
    """A verdict states the sign of the difference, and there is no target to reach."""
    trials = [
        trial_result(
            arm,
            seed,
            [
                {"event": "epoch", "time": 0.0, "epoch": 1, "metrics": {"ansatz/rho": value + seed / 1000}},
                {"event": "end", "time": 0.0, "status": "FINISHED"},
            ],
        )
        for seed in range(3)
        for arm, value in (("default", 0.5), ("more", 0.75), ("less", 0.25))
    ]

    found = compare(trials, baseline="default", metric="ansatz/rho")

    assert [row.verdict for row in found.rows] == [None, "higher", "lower"]
    assert {row.epochs for row in found.rows} == {None}


def test_epochs_until_the_baselines_final_mean() -> None:
    """62.5 %: the baseline gets there with one seed of two, closed-form after 2 and 1 epochs."""
    default, closed = compare(STUDY, baseline="default", metric="test/acc").rows

    assert (default.epochs, default.reached) == (None, 1)
    assert (closed.epochs, closed.reached) == (1.5, 2)


def test_only_finished_trials_count_and_only_common_seeds_are_paired() -> None:
    """What failed or was killed is counted, not averaged."""
    trials = [
        *STUDY,
        trial("default", 2, 0.125, 0.5, status="FAILED"),
        trial("closed-form", 2, 0.125, 1.0, 1.0),
        trial("default", 3, 0.125, status="KILLED"),
        trial_result("closed-form", 3, []),
    ]

    default, closed = compare(trials, baseline="default", metric="test/acc").rows

    assert (default.n, default.trials, default.statuses) == (2, 4, {"FAILED": 1, "FINISHED": 2, "KILLED": 1})
    assert (closed.n, closed.statuses) == (3, {"FINISHED": 3, "PENDING": 1})
    assert closed.difference is not None
    assert (closed.difference.n, closed.difference.mean) == (2, 18.75)


def test_one_seed_has_a_difference_and_no_interval() -> None:
    """Nothing is made up from one pair."""
    row = compare(STUDY[:2], baseline="default", metric="test/acc").row("closed-form")

    assert row.difference == Difference(1, 25.0, reason="one pair of seeds has no interval")
    assert (row.std, row.verdict) == (None, None)


def test_a_study_where_nothing_finished_is_compared_too() -> None:
    """All figures are missing, none is wrong."""
    trials = [trial("default", 0, 0.5, status="FAILED"), trial("arm", 0, 0.5, status="FAILED")]

    default, arm = compare(trials, baseline="default", metric="test/acc").rows

    assert (default.mean, default.epochs, default.seconds, default.reached) == (None, None, None, 0)
    assert arm.difference == Difference(0, None, reason="no seed finished in both arms")


def test_a_resumed_trial_counts_each_epoch_once() -> None:
    """The later line wins, and the time of an epoch that was repeated is not added twice."""
    events = journaled(0.1, 0.2)
    again = [
        {"event": "start", "time": 3.0},
        {"event": "epoch", "epoch": 1, "time": 4.0, "metrics": {"test/acc": 0.25, "epoch_seconds": 3.0}},
        {"event": "end", "time": 5.0, "status": "FINISHED", "reason": None, "seconds": 1.0},
    ]

    row = compare(
        [trial_result("default", 0, [*events, *again])], baseline="default", metric="test/acc"
    ).rows[0]

    assert (row.mean, row.seconds) == (25.0, 3.0)


def test_without_times_of_epochs_the_end_tells_the_time() -> None:
    """Journals of other trainers may have no `epoch_seconds`."""
    trials = [trial("default", 0, 0.1, 0.2, seconds=None)]

    assert compare(trials, baseline="default", metric="test/acc").rows[0].seconds == 9.0


def test_an_unknown_baseline_is_said_with_the_arms() -> None:
    """The message lists what there is."""
    with pytest.raises(UserError, match=r"arms: `default`, `closed-form`") as caught:
        compare(STUDY, baseline="other", metric="test/acc")
    assert caught.value.code == "MIM-Y001"


def test_plain_values_are_json() -> None:
    """No NaN, no tuple keys; seeds are strings."""
    plain = compare(STUDY, baseline="default", metric="test/acc").to_dict()

    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["arms"][0]["values"] == {"0": 50.0, "1": 75.0}
    assert plain["arms"][1]["difference"]["mean"] == 18.75


def test_figures_have_flat_names_and_missing_ones_are_left_out() -> None:
    """The summary run holds them as metrics."""
    figures = compare(STUDY[:2], baseline="default", metric="test/acc").metrics()

    assert figures == {
        "mean/default": 50.0,
        "epochs/default": 2,
        "mean/closed-form": 75.0,
        "epochs/closed-form": 1,
        "difference/closed-form": 25.0,
    }


def test_curves_are_of_finished_trials_in_percent() -> None:
    """What the figure of curves draws."""
    trials = [*STUDY, trial("default", 2, 0.5, status="KILLED")]

    curves = finished_curves(trials, arm="default", metric=metric("test/acc"))

    assert curves == {0: {0: 12.5, 1: 25.0, 2: 50.0}, 1: {0: 12.5, 1: 25.0, 2: 75.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a study on the disk."""
    record = {
        "arms": ["default", "closed-form"],
        "seeds": [0, 1],
        "baseline": "default",
        "metric": "test/acc",
    }
    (tmp_path / "study.json").write_text(json.dumps(record))
    for result in STUDY:
        accuracies = result.curves["test/acc"].values()
        journal = tmp_path / result.arm / f"seed-{result.seed}" / "journal.jsonl"
        journal.parent.mkdir(parents=True)
        journal.write_text("".join(json.dumps(event) + "\n" for event in journaled(*accuracies)))
    return tmp_path


def test_a_study_is_compared_from_its_folder(folder: Path) -> None:
    """By its own metric and baseline."""
    assert of_study(folder) == compare(STUDY, baseline="default", metric="test/acc")


def test_another_metric_and_baseline_may_be_asked_for(folder: Path) -> None:
    """The options of `mimetic compare`."""
    found = of_study(folder, metric="test/loss", baseline="closed-form")

    assert (found.metric.name, found.baseline) == ("test/loss", "closed-form")
    assert found.row("default").difference is not None


def test_an_unknown_metric_is_said_with_those_there_are(folder: Path) -> None:
    """The message lists them."""
    with pytest.raises(UserError, match=r"`val/acc`; there are `epoch_seconds`, `test/acc`, `test/loss`"):
        of_study(folder, metric="val/acc")
