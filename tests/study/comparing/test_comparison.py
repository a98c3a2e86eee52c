"""The comparison of arms, from journals to figures."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimetic.errors import UserError
from mimetic.metrics import metric
from mimetic.study.comparing.comparison import compare_all, of_studies
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.questions import Options
from mimetic.study.comparing.results import TrialResult, finished_curves, trial_result
from mimetic.study.comparing.statistics import Difference, detectable_difference, seeds_needed


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


def compare(results: Sequence[TrialResult], *, baseline: str, metric: str) -> Comparison:
    """Compare the arms of one study by one metric."""
    return compare_all({"": results}, Options(metrics=(metric,), baseline=baseline))[0]


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
    assert of_studies([folder])[0] == compare(STUDY, baseline="default", metric="test/acc")


def test_another_metric_and_baseline_may_be_asked_for(folder: Path) -> None:
    """The options of `mimetic compare`."""
    found = of_studies([folder], Options(metrics=("test/loss",), baseline="closed-form"))[0]

    assert (found.metric.name, found.baseline) == ("test/loss", "closed-form")
    assert found.row("default").difference is not None


def test_an_unknown_metric_is_said_with_those_there_are(folder: Path) -> None:
    """The message lists them."""
    with pytest.raises(UserError, match=r"`val/acc`; there are `epoch_seconds`, `test/acc`, `test/loss`"):
        of_studies([folder], Options(metrics=("val/acc",)))


def options(*metrics: str, **changes: Any) -> Options:
    """Return options with `default` as the baseline."""
    return Options(metrics=metrics if metrics else ("test/acc",), baseline="default", **changes)


def noisy(arm: str, gain: float, seeds: int = 4) -> list[TrialResult]:
    """Return trials of an arm that is better by a gain, with scatter."""
    return [trial(arm, seed, 0.1, 0.3 + gain + 0.01 * seed * (1 + 5 * gain)) for seed in range(seeds)]


def test_several_metrics_are_corrected_together() -> None:
    """Two arms and two metrics are four tests: p-values are adjusted over all of them."""
    results = {"": [*noisy("default", 0.0), *noisy("a", 0.02), *noisy("b", 0.05)]}

    alone = compare_all(results, options())[0]
    both = compare_all(results, options("test/acc", "test/loss"))

    assert [found.comparisons for found in both] == [4, 4]
    assert alone.comparisons == 2
    one, four = alone.row("a").difference, both[0].row("a").difference
    assert one is not None
    assert four is not None
    assert one.p == four.p
    assert one.p_holm is not None
    assert four.p_holm == pytest.approx(2 * one.p_holm)


def test_the_best_epoch_is_chosen_on_validation_data() -> None:
    """The test value at the epoch whose validation accuracy is highest, not the highest test value."""
    curves = {"val/acc": {1: 0.5, 2: 0.75, 3: 0.5}, "test/acc": {1: 0.9, 2: 0.5, 3: 0.75}}
    results = {"": [TrialResult("default", 0, "FINISHED", curves)]}

    assert compare_all(results, options(epoch="best"))[0].rows[0].values == {0: 50.0}
    assert compare_all(results, options())[0].rows[0].values == {0: 75.0}


def test_without_validation_data_there_is_no_best_epoch() -> None:
    """The message names the trial and the metric."""
    with pytest.raises(UserError, match="val/acc") as caught:
        compare_all({"": STUDY}, options(epoch="best"))
    assert caught.value.code == "MIM-Y005"


def test_the_cost_of_a_target_is_compared() -> None:
    """The arm reaches 50 % two epochs earlier; who never does counts as the shortest trial's epochs."""
    results = [trial("default", seed, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6) for seed in range(3)]
    results += [trial("fast", seed, 0.1, 0.2, 0.5, 0.6, 0.6) for seed in range(3)]
    results += [trial("never", seed, 0.1, 0.2, 0.3, 0.3, 0.3) for seed in range(3)]

    accuracy, cost = compare_all({"": results}, options(target=50.0))

    assert (cost.metric.name, cost.metric.direction, cost.horizon) == ("epochs to test/acc 50%", "lower", 4)
    assert {row.arm: (row.mean, row.reached, row.verdict) for row in cost.rows} == {
        "default": (4.0, 3, None),
        "fast": (2.0, 3, "better"),
        "never": (4.0, 0, "inconclusive"),
    }
    assert accuracy.comparisons == cost.comparisons == 4


def test_costs_in_seconds_and_steps() -> None:
    """Seconds add up over epochs; steps are those of the journal, and a journal without them is refused."""
    timed = trial("default", 0, 0.1, 0.2, 0.5)

    assert compare_all({"": [timed]}, options(target=50.0, to="seconds"))[1].rows[0].values == {0: 4.0}
    with pytest.raises(UserError, match="no steps") as caught:
        compare_all({"": [timed]}, options(target=50.0, to="steps"))
    assert caught.value.code == "MIM-Y007"
    stepped = replace(timed, steps={0: 0, 1: 10, 2: 20})
    assert compare_all({"": [stepped]}, options(target=50.0, to="steps"))[1].rows[0].values == {0: 20.0}


def test_a_metric_without_direction_has_no_target() -> None:
    """No value of it is better."""
    with pytest.raises(UserError) as caught:
        compare_all({"": STUDY}, options("lr", target=1.0))
    assert caught.value.code == "MIM-Y006"


def test_power_is_that_of_the_number_of_tests() -> None:
    """Two arms are tested, so the first test of Holm's method is at 97.5 %."""
    results = {"": [*noisy("default", 0.0), *noisy("a", 0.02), *noisy("b", 0.05)]}

    row = compare_all(results, options(detect=0.5))[0].row("a")

    differences = [100 * 0.01 * seed * 0.1 for seed in range(4)]
    expected = detectable_difference(float(np.std(differences, ddof=1)), 4, level=0.975)
    assert row.detectable == pytest.approx(expected)
    assert row.needed == seeds_needed(float(np.std(differences, ddof=1)), 0.5, level=0.975)
    assert row.improvement == 14.5 / 16


def test_several_data_sets_give_one_row_for_each_arm() -> None:
    """Differences are taken within data sets; an arm counts where it was trained."""
    studies = {
        "easy": [*noisy("default", 0.5), *noisy("a", 0.55)],
        "hard": [*noisy("default", 0.0), *noisy("a", 0.05), *noisy("b", 0.01)],
    }

    found = compare_all(studies, options())[0]

    assert found.data_sets == ("easy", "hard")
    assert [row.n for row in found.rows] == [8, 8, 4]
    a = found.row("a")
    assert a.difference is not None
    assert (a.difference.n, a.verdict) == (8, "better")
    assert a.difference.mean == pytest.approx(5.375, abs=0.01)
    assert a.interval is not None
    assert a.values["hard", 0] == 35.0
    plain = found.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["arms"][2]["values"] == pytest.approx({f"hard/{n}": 31 + n * 1.05 for n in range(4)})


def test_studies_are_compared_together_from_their_folders(folder: Path, tmp_path: Path) -> None:
    """A study may not be listed twice, and what differs must be chosen."""
    other = tmp_path / "other" / "b"
    for source in [*folder.glob("*/*/journal.jsonl"), folder / "study.json"]:
        target = other / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())

    found = of_studies([folder, other])[0]
    assert found.data_sets == (folder.parent.name, "other")
    assert found.row("closed-form").n == 4

    with pytest.raises(UserError, match="twice") as caught:
        of_studies([folder, folder])
    assert caught.value.code == "MIM-Y009"
    record = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps(record | {"metric": "test/loss"}))
    with pytest.raises(UserError, match="--metric") as caught:
        of_studies([folder, other])
    assert caught.value.code == "MIM-Y008"
    assert of_studies([folder, other], Options(metrics=("test/acc",)))[0].metric.name == "test/acc"
