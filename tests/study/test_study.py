"""A whole study, offline: workers, journals, statuses, resume, and what a user can get wrong."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.journal import Journal, read_journal
from mimetic.recipe.load import load
from mimetic.study.layout import Trial, studies
from mimetic.study.planning.arms import plan_arms
from mimetic.study.study import run
from mimetic.study.ticker import WATCHED, Ticker
from mimetic.study.tracker import BackgroundTracker
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial

from .conftest import PLAIN, filters

TINY: dict[str, Any] = {
    **PLAIN,
    "train": {"epochs": 2, "batch_size": 32},
    "arms": {"default": {}, "frozen": filters("closed_form", freeze=True)},
}


class Recorder:
    """A display that remembers what it is told."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.trials: list[Trial] = []
        self.ends: dict[str, str] = {}
        self.said: list[str] = []
        self.on_epoch: Any = None

    def start(self, study: Path, trials: Sequence[Trial]) -> None:  # noqa: ARG002
        """Keep the trials."""
        self.trials = list(trials)

    def add(self, trials: Sequence[Trial]) -> None:
        """Keep further trials."""
        self.trials += trials

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Keep how each trial ended."""
        for event in events:
            if event["event"] == "end":
                self.ends[trial.name] = event["status"]
            elif event["event"] == "epoch" and self.on_epoch is not None:
                self.on_epoch(trial, event)

    def message(self, text: str) -> None:
        """Keep a message."""
        self.said.append(text)


def weights(folder: Path) -> dict[str, str]:
    """Return a digest of the final weights of every trial below a study."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("weights.safetensors"))
    }


def metrics(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Return epoch, training loss and test accuracy of every trial, last word of each epoch."""
    found = {}
    for path in sorted(folder.rglob("journal.jsonl")):
        epochs = {e["epoch"]: e["metrics"] for e in read_journal(path) if e["event"] == "epoch"}
        found[str(path.relative_to(folder))] = [
            (n, m.get("train/loss", 0.0), m["test/acc"]) for n, m in sorted(epochs.items())
        ]
    return found


@pytest.fixture(scope="module")
def straight(build_once: Any) -> Path:
    """Return the folder of a study that ran without interruption, in a worker."""
    root = build_once("study", lambda root: run(load(TINY), root=root, offline=True, workers=1))
    (folder,) = studies(root)
    return folder


def test_study_leaves_what_it_promises(straight: Path) -> None:
    """Journals end FINISHED; plans, weights, pictures and the comparison lie beside them."""
    trials = [straight / arm / f"seed-{seed}" for arm in ("default", "frozen") for seed in (0, 1)]

    assert [read_journal(t / "journal.jsonl")[-1]["status"] for t in trials] == ["FINISHED"] * 4
    for trial in trials:
        assert (trial / "weights.safetensors").is_file()
        drawn = trial.name == "seed-0"  # the first seed of each arm
        assert {p.name for p in trial.glob("pictures/*")} == {
            f"{what}-{when}.png" for what in ("filters", "covariance") for when in ("start", "end") if drawn
        }
    comparison = json.loads((straight / "comparison.json").read_text())
    assert [arm["n"] for arm in comparison["arms"]] == [2, 2]
    assert load(straight / "resolved.yaml") == load(TINY)


def test_arms_are_paired_by_seed(straight: Path) -> None:
    """Parameters no rule names begin with the same bytes in both arms."""
    plans = {
        arm: json.loads((straight / arm / "seed-0" / "plan.json").read_text())
        for arm in ("default", "frozen")
    }
    different = [
        a["parameter"]
        for a, b in zip(plans["default"]["entries"], plans["frozen"]["entries"], strict=True)
        if (a["initializer"], a["frozen"]) != (b["initializer"], b["frozen"])
    ]

    assert different == ["blocks.0.spatial.weight", "blocks.1.spatial.weight"]


def test_queue_in_one_process_gives_the_same_bytes(straight: Path, tmp_path: Path) -> None:
    """One trial after another in this process ends with the weights of the pool."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "resolved.yaml").write_text((straight / "resolved.yaml").read_text())
    shelf = TrialCache()
    trials = [Trial(str(folder), arm, seed) for arm, seed in (("default", 0), ("frozen", 1))]

    assert [run_trial(trial, shelf, lambda: None) for trial in trials] == ["FINISHED"] * 2
    assert len(weights(folder)) == 2
    assert weights(folder).items() <= weights(straight).items()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_killed_worker_fails_its_trial_alone_and_resume_completes(straight: Path, tmp_path: Path) -> None:
    """`kill -9` of a worker costs one trial; `resume` then gives the metrics of an uninterrupted run."""
    display = Recorder()
    killed: list[int] = []

    def kill(_trial: Trial, event: Mapping[str, Any]) -> None:
        if event["epoch"] == 1 and not killed:
            worker = next(iter(_children()))
            killed.append(worker)
            os.kill(worker, signal.SIGKILL)

    display.on_epoch = kill
    first = run(load(TINY), root=tmp_path, offline=True, workers=1, display=display)

    assert sorted(first.statuses.values()) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    second = run(load(TINY), root=tmp_path, offline=True, workers=1, resume=True)
    assert second.complete
    assert second.folder == first.folder
    assert weights(second.folder) == weights(straight)
    assert metrics(second.folder) == metrics(straight)


def _children() -> list[int]:
    """Return the worker processes of this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        command = (path.parent / "cmdline").read_bytes()
        if int(fields[1]) == os.getpid() and b"mimetic.study.executors.worker" in command:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_interrupt_ends_trials_as_killed(tmp_path: Path) -> None:
    """Ctrl-C ends what runs within a step, says so, and keeps a comparison of what there is."""
    long = {**TINY, "train": {"epochs": 2000, "batch_size": 32}, "seeds": 1}
    display = Recorder()
    display.on_epoch = lambda _t, e: _interrupt() if e["epoch"] == 2 else None
    began = time.monotonic()
    result = run(load(long), root=tmp_path, offline=True, workers=1, display=display)

    assert result.interrupted
    assert result.statuses == {"default · seed 0": "KILLED", "frozen · seed 0": "PENDING"}
    assert time.monotonic() - began < 60
    assert not _children()


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_second_run_is_a_new_study(straight: Path, tmp_path: Path) -> None:
    """Running again overwrites nothing."""
    one = run(load({**TINY, "seeds": 1}), root=tmp_path, offline=True, workers=1)
    other = run(load({**TINY, "seeds": 1}), root=str(tmp_path), offline=True, workers=1)

    assert one.folder != other.folder
    assert list(studies(tmp_path, "tiny")) == [one.folder, other.folder]


def test_resume_refuses_a_changed_recipe(straight: Path) -> None:
    """What is trained already is not changed; the differences are shown as values."""
    changed = {**TINY, "train": {"epochs": 2, "batch_size": 16}}
    with pytest.raises(UserError, match=r"`arms.default.train.batch_size: 32 → 16`") as refused:
        run(load(changed), root=straight.parents[2], offline=True, resume=True)
    assert refused.value.code == "MIM-Y321"


def test_resume_without_a_study(tmp_path: Path) -> None:
    """There is nothing to resume in an empty folder."""
    with pytest.raises(UserError, match="there is no study of `tiny`"):
        run(load(TINY), root=tmp_path, offline=True, resume=True)


def test_mistakes_of_all_arms_come_before_anything_is_written(tmp_path: Path) -> None:
    """A rule that does not fit is found for every arm, and no folder is made."""
    wrong = {
        **TINY,
        "arms": {
            "one": {"init": [{"id": "a", "match": "nowhere", "init": "zeros"}]},
            "two": {"init": [{"id": "b", "match": {"kind": "conv_transpose"}, "init": "zeros"}]},
        },
    }
    with pytest.raises(RecipeError) as caught:
        run(load(wrong), root=tmp_path / "runs", offline=True)

    assert [issue.path for issue in caught.value.issues] == [
        ("arms", "one", "init", "a"),
        ("arms", "two", "init", "b"),
    ]
    assert not (tmp_path / "runs").exists()


def test_missing_data_are_said_before_anything_starts(tmp_path: Path) -> None:
    """A missing set is one clear error that says where to put the files."""
    absent = load({**TINY, "data": {"type": "cifar10", "root": str(tmp_path)}})
    with pytest.raises(RecipeError, match="cifar-10-batches-py"):
        run(absent, root=tmp_path / "runs", offline=True)
    assert not (tmp_path / "runs").exists()


def test_an_arm_without_a_model_is_said(tmp_path: Path) -> None:
    """A recipe of rules alone cannot be run, and says what is missing."""
    with pytest.raises(RecipeError, match="arm `main` needs `model` and `data` and `train`"):
        plan_arms(load({"recipe": 1, "name": "x", "init": [{"id": "a", "match": "b", "init": "zeros"}]}))


def test_diverged_trial_fails_and_the_others_go_on(tmp_path: Path, in_this_process: Any) -> None:
    """A loss that is not finite ends its trial as FAILED, with the reason."""
    wild = {
        **TINY,
        "seeds": 1,
        "arms": {"default": {}, "wild": {"train": {"optimizer": {"type": "sgd", "lr": 1e30}}}},
    }
    with in_this_process():
        result = run(load(wild), root=tmp_path, offline=True)

    assert result.statuses == {"default · seed 0": "FINISHED", "wild · seed 0": "FAILED"}
    end = read_journal(result.folder / "wild" / "seed-0" / "journal.jsonl")[-1]
    assert "diverged" in end["reason"]


def test_every_trial_is_displayed_though_few_are_watched(tmp_path: Path) -> None:
    """Also if more trials than are looked at end between two ticks; events of before are skipped."""
    trials = [Trial(str(tmp_path), f"arm-{number}", 0) for number in range(3 * WATCHED)]
    with Journal(trials[-1].journal) as journal:
        journal.write("end", status="FAILED", reason=None, seconds=1.0)
    display = Recorder()
    tick = Ticker(BackgroundTracker(lambda: None), display)
    tick.follow(trials)
    tick()
    assert display.ends == {}
    for trial in trials:
        with Journal(trial.journal) as journal:
            journal.write("start")
            journal.write("end", status="FINISHED", reason=None, seconds=1.0)
    tick()
    assert display.ends == {trial.name: "FINISHED" for trial in trials}
    assert tick._running == []


def test_a_study_with_nothing_to_do_draws_nothing(
    tmp_path: Path, in_this_process: Callable[[], AbstractContextManager[None]]
) -> None:
    """The files of its comparison stay; those that are missing or differ are written."""
    recipe = {**TINY, "seeds": 1, "train": {"epochs": 1, "batch_size": 32}}
    with in_this_process():
        folder = run(load(recipe), root=tmp_path, offline=True).folder
        shown = [path for path in folder.glob("[!s]*.*") if path.is_file() and path.stem != "complete"]
        written = {path: path.stat().st_mtime_ns for path in shown}
        again = run(load(recipe), root=tmp_path, offline=True, resume=True)
        assert again.complete
        assert {path: path.stat().st_mtime_ns for path in written} == written
        (folder / "report.html").unlink()
        (folder / "comparison.json").write_bytes(b"\xff")
        run(load(recipe), root=tmp_path, offline=True, resume=True)
    assert (folder / "report.html").is_file()
    assert json.loads((folder / "comparison.json").read_text())["metric"] == "test/acc"
