"""Many trials: their rate by executor, what a study costs, and what tracking takes.

The study is the quickstart's: a ConvMixer-64/4 on scikit-learn's digits, some seconds a trial.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measurement import Cell, Column, DeviceOptions, Result, Table, measurement, option
from benchmarks.timing import available_cores, on_cores, process_timed, timed
from mimetic.journal import Event, Journal, read_journal
from mimetic.recipe.load import load
from mimetic.study import tracker
from mimetic.study.executors.supervisor import WORKER_ENVIRONMENT
from mimetic.study.layout import Trial, studies
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study import run
from mimetic.study.study_folder import start
from mimetic.study.tracker import Tracker
from mimetic.tracking.uploader import JournalUploader

FILTERS = {"id": "filters", "match": {"kind": "depthwise_conv"}, "covariance": {"type": "closed_form"}}
ARMS: dict[str, Any] = {"default": {}, "closed-form": {"init": [FILTERS]}}
HOUR = 3600.0


def recipe(*, epochs: int = 2, arms: dict[str, Any] | int = 1, seeds: int = 1) -> dict[str, Any]:
    """Return the study's recipe, with these arms or so many equal ones."""
    return {
        "recipe": 1,
        "name": "trials",
        "model": {"type": "convmixer", "dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 1},
        "data": {"type": "digits"},
        "train": {
            "epochs": epochs,
            "batch_size": 64,
            "optimizer": {"type": "adamw", "lr": 0.01, "weight_decay": 0.01},
            "schedule": {"type": "one_cycle"},
        },
        "seeds": seeds,
        "arms": {f"arm-{number}": {} for number in range(arms)} if isinstance(arms, int) else arms,
    }


@dataclass(frozen=True, slots=True)
class Ran:
    """A study that ran.

    Attributes:
        seconds: Wall time of the whole command, or of all cold processes.
        journals: Events of its trials, in the order in which the trials started.
    """

    seconds: float
    journals: list[list[Event]]

    @property
    def running(self) -> float:
        """Return the seconds from the first event of a journal to the last."""
        return max(events[-1]["time"] for events in self.journals) - self.journals[0][0]["time"]


def run_command(
    study: dict[str, Any],
    *words: str,
    workers: int,
    device: str,
    cores: Sequence[int] | None = None,
    timeout: float | None = None,
) -> Ran:
    """Run a study by `mimetic run`, on some cores.

    Raises:
        CalledProcessError: If a trial fails.
        TimeoutExpired: If it takes longer than the timeout in seconds.
    """
    with tempfile.TemporaryDirectory() as name, on_cores(cores if cores is not None else available_cores()):
        root = Path(name)
        file = root / "trials.yaml"
        file.write_text(json.dumps(study))
        command = [sys.executable, "-m", "mimetic", "run", str(file), "--root", str(root / "runs")]
        command += ["--workers", str(workers), "--device", device, *words]
        work = partial(subprocess.run, command, check=True, capture_output=True, text=True, timeout=timeout)
        seconds, _ = timed(work)
        (folder,) = studies(root / "runs")
        journals = [read_journal(path) for path in folder.glob("*/seed-*/journal.jsonl")]
    return Ran(seconds, sorted(journals, key=lambda events: events[0]["time"]))


# --------------------------------------------------------------------------------------------- rates
@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOptions(DeviceOptions):
    """Flags of `tracking`."""

    seeds: int = option(4, "seeds of two arms each")
    epochs: int = option(4, "epochs of a trial")


@dataclass(frozen=True, kw_only=True, slots=True)
class RateOptions(TrialOptions):
    """Flags of `rates`."""

    rounds: int = option(1, "how often each executor runs")
    mlflow: str = option("on", "whether studies are tracked", ["on", "off"])


@measurement(takes="5 min", seeds=1, epochs=1, mlflow="off")
def rates(options: RateOptions) -> Result:
    """Compare trials per hour: one worker, two, one cold process per trial.

    `queue` is `mimetic run --workers 1` on one core, `pool of 2` is `--workers 2` on two; both are timed as
    whole commands, with start, planning, tracking and comparison. A cold process is a worker that gets one
    trial and ends: imports, data, model and training alone, one after another on one core. `running` leaves
    out what a command does before its first trial and after its last.
    """
    study, cores = recipe(epochs=options.epochs, arms=ARMS, seeds=options.seeds), available_cores()
    trials = options.seeds * len(ARMS)
    command = partial(run_command, study, *_offline(options.mlflow), device=options.device)
    ways: dict[str, Callable[[], Ran]] = {
        "one cold process per trial": partial(_cold, study, cores[:1], options.device),
        "queue": partial(command, workers=1, cores=cores[:1]),
        "pool of 2": partial(command, workers=2, cores=cores[:2]),
    }
    found: dict[str, list[Ran]] = defaultdict(list)
    for _ in range(options.rounds):
        for name, way in ways.items():
            found[name].append(way())
    whole = {name: statistics.median(ran.seconds for ran in runs) for name, runs in found.items()}
    running = {name: statistics.median(ran.running for ran in runs) for name, runs in found.items()}
    cold, queue, pool = ways
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            min(2, len(cores)) if name == pool else 1,
            whole[name],
            HOUR * trials / whole[name],
            HOUR * trials / running[name],
            whole[cold] / whole[name],
        )
        for name in ways
    ]
    columns = (
        Column("executor"),
        Column("cores", "d"),
        Column("seconds", ".1f"),
        Column("trials/hour", ".0f"),
        Column("running, trials/hour", ".0f"),
        Column("beside cold", ".2f"),
    )
    notes = [f"{trials} trials of {options.epochs} epochs, median of {options.rounds} round(s) in turn."]
    if len(cores) > 1:
        pairs = list(zip(found[queue], found[pool], strict=True))
        whole_ratio = statistics.median(a.seconds / b.seconds for a, b in pairs)
        alone = statistics.median(a.running / b.running for a, b in pairs)
        notes.append(
            f"Two cores give {alone:.2f} times the trials per hour of one while trials run, and "
            f"{whole_ratio:.2f} times as a whole command."
        )
    return Result((Table(columns, rows), _turnover([ran.journals for ran in found[queue]])), tuple(notes))


def _offline(mlflow: str) -> list[str]:
    return [] if mlflow == "on" else ["--offline"]


def _turnover(queues: list[list[list[Event]]]) -> Table:
    """Return what passes between two trials of a queue, from the times in their journals."""
    gaps: dict[str, list[float]] = defaultdict(list)
    for before, after in (pair for journals in queues for pair in pairwise(journals)):
        trained = next(e for e in reversed(before) if e["event"] == "epoch")
        opened = next(e for e in after if e["event"] == "start")
        measured = next(e for e in after if e["event"] == "epoch")
        gaps["end of a trial → the next one's loop: model, plan, weights"].append(
            opened["time"] - before[-1]["time"]
        )
        gaps["its evaluation before training"].append(measured["time"] - opened["time"])
        gaps["last metrics → end: state, weights, pictures"].append(before[-1]["time"] - trained["time"])
    rows: list[tuple[Cell, ...]] = [
        (name, statistics.median(seconds), max(seconds), len(seconds)) for name, seconds in gaps.items()
    ]
    columns = (
        Column("from → to"),
        Column("median, s", ".3f"),
        Column("largest, s", ".3f"),
        Column("n", "d"),
    )
    return Table(columns, rows, "Between two trials of the queue:")


def _cold(study: dict[str, Any], cores: Sequence[int], device: str) -> Ran:
    """Train each trial in a process of its own, one after another."""
    loaded = load(study)
    command = [sys.executable, "-m", "mimetic.study.executors.worker"]
    variables = {**os.environ, **WORKER_ENVIRONMENT, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name, on_cores(cores):
        folder = start(Path(name), loaded, plan_arms(loaded), open_data(loaded))
        trials = [Trial(str(folder), arm, seed, device) for seed in loaded.seeds for arm in loaded.arms]
        seconds = 0.0
        for trial in trials:
            lines = f"{trial.to_json()}\nend\n"
            work = partial(subprocess.run, command, input=lines, env=variables, check=True)
            seconds += timed(partial(work, capture_output=True, text=True))[0]
        return Ran(seconds, [read_journal(trial.journal) for trial in trials])


# --------------------------------------------------------------------------------------------- tracking
@measurement(takes="3 min", seeds=1, epochs=1)
def tracking(options: TrialOptions) -> Result:
    """Measure what journal and MLflow take of a trial's time.

    The coordinator's calls are timed inside the study; a worker's writes are its journal written again, event
    by event, to the same disk. (Two studies, tracked and offline, differ by more than that from round to
    round.) The coordinator works beside the worker: on a core of its own it delays nothing, on a shared core
    what it takes of the processor counts.
    """
    study = load(recipe(epochs=options.epochs, arms=ARMS, seeds=options.seeds))
    clock = Clock()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with (
            clock.timing(Tracker, ("finish",)),
            clock.timing(JournalUploader, ("upload",)),
            clock.timing(tracker, ("open_tracker",)),
        ):
            result = run(study, root=root / "runs", workers=1, device=options.device)
        journals = [read_journal(path) for path in result.folder.glob("*/seed-*/journal.jsonl")]
        for events in journals:
            with Journal(root / "again.jsonl") as journal:
                clock.add("journal", partial(_write, journal, events))
    count = len(journals)
    wall = sum(events[-1]["seconds"] for events in journals) / count
    names = {"journal, in the worker": "journal", "mirroring, in the coordinator": "upload"}
    parts = {what: (clock.wall[name] / count, clock.processor[name] / count) for what, name in names.items()}
    parts["together"] = (sum(w for w, _ in parts.values()), sum(p for _, p in parts.values()))
    rows: list[tuple[Cell, ...]] = [(what, w, w / wall, p, p / wall) for what, (w, p) in parts.items()]
    columns = (
        Column("what"),
        Column("seconds a trial", ".4f"),
        Column("share of its time", ".2%"),
        Column("of the processor", ".4f"),
        Column("share of its time", ".2%"),
    )
    once = (clock.wall[name] for name in ("open_tracker", "finish"))
    notes = (
        f"{count} trials of {options.epochs} epochs into a new sqlite store, {wall:.2f} s a trial.",
        "Once a study: {:.2f} s to open the store, {:.2f} s to compare and end.".format(*once),
    )
    return Result((Table(columns, rows),), notes)


class Clock:
    """Sums of wall and processor seconds by name."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.processor: dict[str, float] = defaultdict(float)

    def add(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work, add its seconds, and return what it returns."""
        processor, (wall, result) = process_timed(work)
        self.wall[name] += wall
        self.processor[name] += processor
        return result

    @contextmanager
    def timing(self, owner: object, names: Sequence[str]) -> Iterator[None]:
        """Add the seconds of some functions of a class or module inside the block."""
        plain = {name: getattr(owner, name) for name in names}

        def wrapped(name: str) -> Callable[..., Any]:
            return lambda *values, **named: self.add(name, lambda: plain[name](*values, **named))

        for name in names:
            setattr(owner, name, wrapped(name))
        try:
            yield
        finally:
            for name, method in plain.items():
                setattr(owner, name, method)


def _write(journal: Journal, events: list[Event]) -> None:
    for event in events:
        journal.write(event["event"], **{k: v for k, v in event.items() if k not in {"event", "time"}})


# --------------------------------------------------------------------------------------------- costs
@dataclass(frozen=True, kw_only=True, slots=True)
class CostOptions(DeviceOptions):
    """Flags of `costs`."""

    epochs: tuple[int, ...] = option((1, 3, 8), "epochs with 1 arm and 1 seed")
    arms: tuple[int, ...] = option((1, 2, 4), "arms with 2 epochs and 1 seed")
    seeds: tuple[int, ...] = option((1, 2, 4), "seeds with 2 epochs and 1 arm")
    mlflow: str = option("on", "whether studies are tracked", ["on", "off"])


@measurement(takes="5 min", epochs=(1, 2), arms=(), seeds=(), mlflow="off")
def costs(options: CostOptions) -> Result:
    """Fit seconds = a + b·n of a study to its epochs, arms and seeds.

    By least squares; what is not varied is 2 epochs, 1 arm, 1 seed.
    """
    command = partial(run_command, workers=1, device=options.device, cores=available_cores()[:1])
    rows: list[tuple[Cell, ...]] = []
    for axis, counts in {"epochs": options.epochs, "arms": options.arms, "seeds": options.seeds}.items():
        if not counts:
            continue
        studies_of = [recipe(**{axis: n}) for n in counts]  # type: ignore[arg-type]
        seconds = [command(study, *_offline(options.mlflow)).seconds for study in studies_of]
        slope, intercept = statistics.linear_regression(counts, seconds)
        residual = max(abs(s - intercept - slope * n) for n, s in zip(counts, seconds, strict=True))
        shown = ", ".join(f"{n}: {s:.1f}" for n, s in zip(counts, seconds, strict=True))
        rows.append((axis, shown, intercept, slope, residual))
    columns = (
        Column("n"),
        Column("seconds at each n"),
        *(Column(name, ".2f") for name in ("a", "b", "largest residual")),
    )
    return Result((Table(columns, rows),))
