"""What a study of many trials costs: to list, compare and resume them, and the process that follows them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measurement import Cell, Column, Options, Result, Table, measurement, option
from benchmarks.timing import process_timed
from benchmarks.trials import recipe
from mimetic.journal import Journal
from mimetic.recipe.load import load
from mimetic.study.display import Display
from mimetic.study.environment import versions
from mimetic.study.layout import Trial, trials_of
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study_folder import start
from mimetic.study.ticker import Ticker
from mimetic.study.tracker import BackgroundTracker, StudyTrials, open_tracker
from mimetic.tracking.log import log_dataset
from mimetic.tracking.store import Store

_WARM = 3
"""Trials before those that are measured: first calls compile MLflow's queries."""
_TICKS = 5
"""How often a coordinator looks at the journals in a second."""
_TAGS = 14
"""Tags of a trial's run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyOptions(Options):
    """Flags of `many`."""

    arms: int = option(20, "arms")
    seeds: int = option(100, "seeds")
    epochs: int = option(10, "epochs of a trial")
    tracked: int = option(200, "trials that the coordinator follows")


@measurement(takes="3 min", arms=2, seeds=3, tracked=4)
def many(options: ManyOptions) -> Result:
    """Measure `ls`, `compare` and `run --resume` of many finished trials, and a coordinator's work.

    Journals are written as a worker writes them, with values that are made up; nothing is trained. Each verb
    is a process of its own, which imports what it needs: what the trials cost is the difference. `resume`
    runs twice: the first one writes the comparison, the second one finds everything done.

    The coordinator's work for a trial of two epochs without pictures is measured in one process: to read its
    journal and show it (offline), to upload it to a new sqlite store as well (tracked), and MLflow's calls
    alone: create a run with tags, log its data set, params and metrics, end it. They take turns.
    """
    found = {(a, s): _verbs(a, s, options.epochs) for a, s in ((1, 1), (options.arms, options.seeds))}
    one, all_of_them = found.values()
    rows: list[tuple[Cell, ...]] = [(verb, one[verb], all_of_them[verb]) for verb in one]
    columns = (Column("s of processor"), Column("1 trial", ".2f"), Column("all", ".2f"))
    note = f"All: {options.arms} arms × {options.seeds} seeds."
    return Result((Table(columns, rows), _coordinator(options.tracked)), (note,))


def _coordinator(count: int) -> Table:
    """Return processor time and growth of memory of a coordinator by trial, beside MLflow's bare calls."""
    loaded = load(recipe(seeds=count + _WARM))
    seconds: dict[str, float] = defaultdict(float)
    grown: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as name:
        folder = start(Path(name), loaded, plan_arms(loaded), open_data(loaded))
        trials = trials_of(folder)
        tracker = open_tracker(StudyTrials(loaded, folder, trials), root=Path(name), display=Display())
        ticker = Ticker(BackgroundTracker(lambda: None), Display())
        ticker.follow(trials)

        def tick() -> None:
            for _ in range(_TICKS):
                ticker()

        for number, (trial, uploader) in enumerate(zip(trials, tracker.uploader.uploaders, strict=True)):
            _write_trial(trial, 2)
            calls = {"offline": tick, "upload": uploader.upload, "calls": partial(_bare, tracker.store)}
            for what, call in calls.items():
                before = _resident()
                processor, _ = process_timed(call)
                if number >= _WARM:
                    seconds[what] += processor / count
                    grown[what] += (_resident() - before) / count
    ways = {"offline": ("offline",), "tracked": ("offline", "upload"), "MLflow's calls alone": ("calls",)}
    rows: list[tuple[Cell, ...]] = []
    for way, parts in ways.items():
        taken = sum(seconds[part] for part in parts)
        rows.append((way, 1000 * taken, taken / seconds["calls"], sum(grown[part] for part in parts) / 1024))
    columns = (
        Column("coordinator"),
        Column("ms of processor a trial", ".1f"),
        Column("beside MLflow's calls", ".2f"),
        Column("kB a trial", ".1f"),
    )
    return Table(columns, rows, f"A coordinator by trial, {count} trials of 2 epochs:")


def _bare(store: Store) -> None:
    """Do with MLflow alone what a trial of two epochs needs: three calls and its data set."""
    from mlflow.entities import Metric, Param

    client, stamp = store.client, int(time.time() * 1000)
    tags = {f"tag-{number}": "value" for number in range(_TAGS)}
    run = client.create_run(store.experiment_id, start_time=stamp, tags=tags, run_name="bare").info.run_id
    log_dataset(store, run, name="digits", digest="0")
    points = [
        Metric(name, value, stamp, epoch) for epoch in range(3) for name, value in _metrics(0, epoch).items()
    ]
    client.log_batch(run, metrics=points, params=[Param("arm", "bare"), Param("seed", "0")])
    client.set_terminated(run, "FINISHED", end_time=stamp)


def _resident() -> int:
    """Return the resident bytes of this process; 0 where the system has no /proc."""
    statistics = Path("/proc/self/statm")
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statistics.exists() else 0


def _verbs(arms: int, seeds: int, epochs: int) -> dict[str, float]:
    """Return the processor seconds of each verb."""
    with tempfile.TemporaryDirectory() as name:
        root, file = Path(name), Path(name, "trials.yaml")
        file.write_text(json.dumps(recipe(arms=arms, seeds=seeds, epochs=epochs)))
        _write_study(root, file, epochs)
        resume = ("run", str(file), "--resume", "--offline")
        verbs = {"ls": ("ls", "studies"), "compare": ("compare", "trials"), "resume": resume, "again": resume}
        return {verb: _seconds([*words, "--root", str(root)]) for verb, words in verbs.items()}


def _write_study(root: Path, file: Path, epochs: int) -> None:
    """Write a study whose trials have finished."""
    loaded = load(file)
    folder = start(root, loaded, plan_arms(loaded), open_data(loaded))
    for trial in trials_of(folder):
        _write_trial(trial, epochs)


def _write_trial(trial: Trial, epochs: int) -> None:
    """Write the journal of a trial that has finished."""
    with Journal(trial.journal) as journal:
        journal.write("start", arm=trial.arm, seed=trial.seed, content=trial.content, versions=versions())
        for epoch in range(epochs + 1):
            journal.write("epoch", epoch=epoch, step=20 * epoch, metrics=_metrics(trial.seed, epoch))
        journal.write("end", status="FINISHED", reason=None, seconds=10.0)


def _metrics(seed: int, epoch: int) -> dict[str, float]:
    value = (seed * 7 + epoch * 3) % 11 / 11
    return {"test/acc": value, "test/loss": 1 - value, "train/loss": value, "epoch_seconds": 1.0}


def _seconds(words: list[str]) -> float:
    """Return the processor seconds of a verb in a process of its own."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "mimetic", *words], check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
