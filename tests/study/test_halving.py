"""Successive halving: worse arms stop after a rung, by validation data, whatever is killed and resumed."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.errors import RunError, UserError
from mimetic.journal import Journal, history, read_journal
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.study.comparing.comparison import of_studies
from mimetic.study.comparing.questions import Options
from mimetic.study.comparing.statistics import holm
from mimetic.study.comparing.tables import headline, table_of
from mimetic.study.halving import decide, due
from mimetic.study.layout import Trial, study_id, trials_of
from mimetic.study.listing import summaries
from mimetic.study.record import Rung, read_record, write_record
from mimetic.study.selection import choose, selection
from mimetic.study.study import run
from mimetic.tracking.runs import find_runs
from mimetic.tracking.store import open_store

from .conftest import PLAIN
from .test_study import Recorder, weights

InProcess = Callable[[], AbstractContextManager[None]]

RATES = {"slow": 1e-6, "fast": 0.1, "middle": 0.01}
RECIPE: dict[str, Any] = {
    **PLAIN,
    "data": {"type": "digits", "train_size": 64, "val_size": 32, "test_size": 32},
    "seeds": 4,
    "study": {"halving": {"factor": 2, "metric": "val/loss"}},
    "arms": {
        "default": {},
        **{arm: {"train": {"optimizer": {"type": "sgd", "lr": lr}}} for arm, lr in RATES.items()},
    },
}


def recipe(seeds: int = 4, arms: int = 4, **halving: Any) -> Recipe:
    """Return a recipe of a baseline `base` and arms `a`, `b`, `c`, … with a halving."""
    named = {"base": {}} | {chr(ord("a") + number): {} for number in range(arms)}
    return load({**RECIPE, "seeds": seeds, "arms": named, "study": {"halving": halving}})


def finished(folder: Path, values: Mapping[str, list[float]], measure: str = "val/acc") -> list[Trial]:
    """Return the trials of arms, with journals of those that have a value."""
    trials = [Trial(str(folder), arm, seed) for seed in range(4) for arm in values]
    for trial in trials:
        for value in values[trial.arm][trial.seed : trial.seed + 1]:
            with Journal(trial.journal) as journal:
                journal.write("start")
                journal.write("epoch", epoch=1, metrics={measure: value, "test/acc": 1.0 - value})
                journal.write("end", status="FINISHED", reason=None, seconds=1.0)
    return trials


def test_the_best_half_goes_on(tmp_path: Path) -> None:
    """Of four arms two are left after one seed and one after two; means are over all seeds of a rung."""
    values = {"base": [0.1], "a": [0.5, 0.9], "b": [0.6, 0.7], "c": [0.4], "d": [0.3]}
    trials = finished(tmp_path, values)
    rungs = decide(recipe(), trials)
    assert [(rung.seeds, rung.stopped) for rung in rungs] == [((0,), ("c", "d")), ((0, 1), ("b",))]
    assert rungs[1].means == pytest.approx({"a": 70.0, "b": 65.0})
    assert {trial.seed for trial in due(recipe(), trials)} == {0, 1, 2, 3}
    # without one of its trials the second rung is undecided
    (tmp_path / "b" / "seed-1" / "journal.jsonl").unlink()
    assert decide(recipe(), trials) == rungs[:1]
    assert {trial.seed for trial in due(recipe(), trials)} == {0, 1}


@pytest.mark.parametrize(
    ("values", "halving", "stopped"),
    [
        ([0.5, 0.5, 0.5, 0.4], {}, ("d",)),  # who equals the last that goes on goes on, too
        ([0.5, 0.5, 0.5, 0.5], {}, ()),
        ([0.5, 0.6, 0.4, 0.3], {"factor": 3}, ("c", "d")),  # ⌈4/3⌉ go on
        ([0.5, 0.6, 0.4, 0.3], {"groups": [["a", "b"], ["c", "d"]]}, ("a", "d")),
        ([0.5, 0.6, 0.4, 0.3], {"groups": [["base", "a"]]}, ("base",)),
        ([0.5, 0.6, 0.4, 0.3], {"metric": "val/loss"}, ("a", "b")),
        ([float("nan"), 0.6, 0.7, 0.8], {"metric": "val/loss"}, ("a", "d")),
    ],
)
def test_who_stops(
    values: list[float], halving: dict[str, Any], stopped: tuple[str, ...], tmp_path: Path
) -> None:
    """Ties go on together; groups compete among themselves; losses rank the other way, and NaN last."""
    named = {"base": [0.0]} | {arm: [value] for arm, value in zip("abcd", values, strict=True)}
    rungs = decide(recipe(**halving), finished(tmp_path, named, halving.get("metric", "val/acc")))
    assert rungs[0].stopped == stopped


def test_a_metric_that_was_not_measured_decides_nothing(tmp_path: Path) -> None:
    """It is an error, not a tie."""
    with pytest.raises(RunError) as caught:
        decide(recipe(metric="val/loss"), finished(tmp_path, {arm: [0.1] for arm in ("base", *"abcd")}))
    assert caught.value.code == "MIM-Y083"


HARVEST = {
    "init": [
        {"match": {"kind": "depthwise_conv"}, "covariance": {"type": "filters", "from": {"arm": "default"}}}
    ]
}


@pytest.mark.parametrize(
    ("changes", "code", "at"),
    [
        ({"study": {"halving": {"metric": "test/acc"}}}, "MIM-Y081", "study.halving.metric"),
        ({"study": {"halving": {"min_seeds": 4}}}, "MIM-R029", "study.halving"),
        ({"arms": {"default": {}, "one": {}}}, "MIM-R030", "study.halving"),
        ({"arms": {"one": {}, "default": {}, "other": HARVEST}}, "MIM-R030", "study.halving"),
        ({"study": {"halving": {"groups": [["slow", "lost"]]}}}, "MIM-R039", "study.halving.groups.0.1"),
        (
            {"study": {"halving": {"groups": [["slow", "fast"], ["middle", "slow"]]}}},
            "MIM-R040",
            "study.halving.groups.1.1",
        ),
        (
            {
                "study": {
                    "halving": {"groups": [["slow", "fast"]]},
                    "select": {"seeds": [7, 8]},
                },
                "arms": {"default": {"sweep": {"train.batch_size": [32, 64]}}, "slow": {}, "fast": {}},
            },
            "MIM-R038",
            "study.halving.groups",
        ),
    ],
)
def test_mistakes_have_positions(changes: dict[str, Any], code: str, at: str) -> None:
    """What decides on test data, or could stop no arm or a needed one, is refused where it is written."""
    with pytest.raises(RecipeError) as caught:
        load(RECIPE | changes)
    (issue,) = caught.value.issues
    assert (issue.code, ".".join(map(str, issue.path))) == (code, at)


@pytest.fixture(scope="module")
def straight(build_once: Any, in_this_process: InProcess) -> Path:
    """Return the folder of a study with halving that nobody stopped."""

    def build(root: Path) -> None:
        with in_this_process():
            run(load(RECIPE), root=root, offline=True)

    (folder,) = (build_once("halving", build) / "studies" / "tiny").iterdir()
    return Path(folder)


def test_the_record_agrees_with_the_journals(straight: Path) -> None:
    """Decisions equal those computed by hand; nobody is trained on more seeds, and every table says so."""
    values = {
        (path.parts[-3], int(path.parts[-2][5:])): history(read_journal(path))["val/loss"][1]
        for path in straight.glob("*/seed-*/journal.jsonl")
    }
    first = {arm: values[arm, 0] for arm in RATES}
    (worst,) = [arm for arm, value in first.items() if value > sorted(first.values())[1]]
    second = {arm: (values[arm, 0] + values[arm, 1]) / 2 for arm in RATES if arm != worst}
    (worse,) = [arm for arm, value in second.items() if value > min(second.values())]
    assert [asdict(rung) for rung in read_record(straight).halving] == [
        {"metric": "val/loss", "seeds": (0,), "means": pytest.approx(first), "stopped": (worst,)},
        {"metric": "val/loss", "seeds": (0, 1), "means": pytest.approx(second), "stopped": (worse,)},
    ]
    seeds = {arm: sum(name == arm for name, _ in values) for arm in RECIPE["arms"]}
    assert sorted(seeds.values()) == [1, 2, 4, 4]
    assert (seeds["default"], seeds[worst], seeds[worse]) == (4, 1, 2)

    comparison = of_studies([straight])[0]
    rows = {row.arm: row for row in comparison.rows}
    for arm, row in rows.items():
        assert list(row.values) == list(range(seeds[arm]))
        if arm in {worst, worse}:
            assert row.stopped is not None
            assert (row.stopped.seeds, row.verdict, row.improvement) == (seeds[arm], None, None)
            assert row.difference is not None
            assert (row.difference.n, row.difference.p, row.difference.low) == (seeds[arm], None, None)
    assert comparison.comparisons == 3
    left = next(row.difference for arm, row in rows.items() if arm not in {worst, worse, "default"})
    assert left is not None
    assert left.p is not None
    assert left.p_holm == pytest.approx(min(1.0, 3.0 * left.p))
    assert worst in " ".join(table_of(comparison).notes)
    assert worst not in headline(comparison)
    assert f"{worst} after 1" in (straight / "comparison.md").read_text()
    assert f"{worst} after 1" in (straight / "report.html").read_text()
    (summary,) = summaries(straight.parents[2])
    assert (summary.statuses, summary.stopped) == ({"FINISHED": 11}, (worst, worse))
    # with a stopped arm as the baseline nothing is tested
    assert {row.verdict for row in of_studies([straight], Options(baseline=worst))[0].rows} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("ends", [2, 4, 8])
def test_an_interrupted_rung_is_decided_alike(
    ends: int, straight: Path, tmp_path: Path, in_this_process: InProcess
) -> None:
    """Whether a rung, or a decision, was interrupted: after `--resume` decisions and weights are the same."""
    count = 0

    def stop(_trial: Trial, _event: Mapping[str, Any]) -> None:
        nonlocal count
        count += 1
        if count == 2 * ends + 1:  # epochs 0 and 1 of each trial
            raise KeyboardInterrupt

    display = Recorder()
    display.on_epoch = stop
    with in_this_process():
        interrupted = run(load(RECIPE), root=tmp_path, offline=True, display=display)
        # as if it had been killed between the last trial of a rung and the record
        record = read_record(interrupted.folder)
        write_record(interrupted.folder, record.model_copy(update={"halving": ()}))
        result = run(load(RECIPE), root=tmp_path, offline=True, resume=True)
        again = run(load(RECIPE), root=tmp_path, offline=True, resume=True)
    assert interrupted.interrupted
    assert result.complete
    assert read_record(result.folder).halving == read_record(straight).halving
    assert weights(result.folder) == weights(straight)
    assert again.comparison == result.comparison


@pytest.mark.slow
def test_more_seeds_continue_with_the_arms_that_are_left(
    straight: Path, tmp_path: Path, in_this_process: InProcess
) -> None:
    """A study that grows has the decisions of one run of the whole recipe."""
    with in_this_process():
        short = run(load({**RECIPE, "seeds": 2}), root=tmp_path, offline=True)
        display = Recorder()
        result = run(load(RECIPE), root=tmp_path, offline=True, resume=True, display=display)
    assert len(read_record(straight).halving) == 2
    assert len(short.statuses) == 7
    assert sum("halving: " in text for text in display.said) == 2  # the record starts anew with the recipe
    assert weights(result.folder).items() >= weights(straight).items()
    assert trials_of(result.folder) == [
        replace(trial, study=str(result.folder)) for trial in trials_of(straight)
    ]


@pytest.mark.slow
def test_candidates_compete_within_their_arm(tmp_path: Path, in_this_process: InProcess) -> None:
    """With `select` the halving is of the selection, each arm's candidates apart; stopped ones lose."""
    swept = {"sweep": {"train.optimizer": [{"type": "sgd", "lr": 1e-6}, {"type": "sgd", "lr": 0.1}]}}
    tuned = load(
        {
            **RECIPE,
            "seeds": 1,
            "study": {"halving": {"metric": "val/loss"}, "select": {"seeds": [7, 8]}},
            "arms": {"default": swept, "other": swept},
        }
    )
    found = selection(tuned)
    assert found.competing() == tuple(map(tuple, tuned.candidates().values()))
    with in_this_process():
        result = run(tuned, root=tmp_path, offline=True)
    (folder,) = (tmp_path / "studies" / "tiny-selection").iterdir()
    (rung,) = read_record(folder).halving
    assert len(rung.stopped) == 2
    assert load(result.folder / "resolved.yaml").study.halving is None
    choices = choose(tuned, of_studies([folder])[0])
    assert {choice.candidate for choice in choices}.isdisjoint(rung.stopped)
    assert "stopped before: " in str(choices[0])


def test_tests_left_out_count_as_not_significant() -> None:
    """Holm's correction with others is that with p-values of one in their place."""
    p_values = {"a": 0.01, "b": 0.03, "c": 0.2}
    ones = {"x": 1.0, "y": 1.0}
    whole = holm(p_values | ones)
    assert holm(p_values, others=2) == {key: whole[key] for key in p_values}


@pytest.mark.parametrize(
    ("part", "value"), [("stopped", 3), ("seeds", 3), ("means", 3), ("means", {"a": "95"}), ("metric", 3)]
)
def test_a_damaged_decision_is_refused(part: str, value: object, tmp_path: Path) -> None:
    """The record may come from a stranger."""
    rung = Rung("val/acc", (0,), {"a": 1.0}, ("a",))
    entry = asdict(rung) | {part: value}
    record = {"arms": ["a"], "seeds": [0], "baseline": "a", "metric": "test/acc", "halving": [entry]}
    (tmp_path / "study.json").write_text(json.dumps(record))
    with pytest.raises(UserError) as caught:
        read_record(tmp_path)
    assert caught.value.code == "MIM-Y115"


@pytest.mark.slow
def test_the_store_has_the_trials_that_were_trained(tmp_path: Path, in_this_process: InProcess) -> None:
    """Trials that were left out have no run; the experiment's page says who stopped."""
    with in_this_process():
        result = run(load(RECIPE), root=tmp_path)
    store = open_store(tmp_path, experiment="tiny")
    found, summary, _ = find_runs(store, study_id(result.folder))
    assert set(found) == {(trial.arm, trial.seed) for trial in trials_of(result.folder)}
    assert summary is not None
    note = store.client.get_experiment_by_name("tiny").tags["mlflow.note.content"]
    assert "Stopped early, after so many seeds" in note
