"""Trials per hour: a queue and a pool of workers beside one cold process for each trial.

    python benchmarks/trials.py                     # every part, some eight minutes on two quiet cores
    python benchmarks/trials.py --parts rates       # cold, queue, pool in turn; turnover; a second core
    python benchmarks/trials.py --parts tracking    # what journal and MLflow take of a trial's time
    python benchmarks/trials.py --parts costs       # seconds against epochs, arms and seeds

The study is the quickstart's: a ConvMixer-64/4 on scikit-learn's digits, some seconds a trial. The queue is
`mimetic run --workers 1` held to one core, the pool `--workers 2` on two; both are timed as whole commands,
with their start, planning, tracking and comparison. A cold process is a worker that gets one trial and
ends: imports, data, model and training, and nothing besides, one after another on one core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from common import head, parser, row, timed

from mimetic.journal import Event, Journal, read_journal
from mimetic.recipe.load import load
from mimetic.study import tracker
from mimetic.study.layout import Trial, studies
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study import run
from mimetic.study.study_folder import start
from mimetic.study.tracker import MlflowTracker

FILTERS = {
    "id": "filters",
    "match": {"kind": "depthwise_conv"},
    "covariance": {"type": "closed_form"},
}
RECIPE: dict[str, Any] = {
    "recipe": 1,
    "name": "trials",
    "model": {"type": "convmixer", "dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 1},
    "data": {"type": "digits"},
    "train": {
        "epochs": 4,
        "batch_size": 64,
        "optimizer": {"type": "adamw", "lr": 0.01, "weight_decay": 0.01},
        "schedule": {"type": "one_cycle"},
    },
    "arms": {"default": {}, "closed-form": {"init": [FILTERS]}},
}
HOUR = 3600.0
COSTS = {"epochs": (1, 3, 8), "arms": (1, 2, 4), "seeds": (1, 2, 4)}
"""Where the cost of a study is measured; what is not varied is 2 epochs, 1 arm, 1 seed."""


def main() -> int:
    """Measure what is asked for, and print the tables."""
    options = _options()
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "rates": rates,
        "tracking": tracking,
        "costs": costs,
    }
    cores = sorted(os.sched_getaffinity(0))
    print(f"torch {torch.__version__}, {options.device}, {len(cores)} core(s), one thread per process")
    for name in options.parts:
        parts[name](options)
    return 0


# ---------------------------------------------------------------------------------------------- rates
@dataclass(frozen=True, slots=True)
class Ran:
    """A study that ran.

    Attributes:
        seconds: Wall time of the whole command, or of all cold processes.
        journals: Events of its trials, in the order in which the trials began.
    """

    seconds: float
    journals: list[list[Event]]

    @property
    def running(self) -> float:
        """Return the seconds from the first event of a journal to the last."""
        return max(events[-1]["time"] for events in self.journals) - self.journals[0][0]["time"]


def rates(options: argparse.Namespace) -> None:
    """Compare executors in turn, round after round; then show turnover and what a second core gives."""
    recipe = _asked(options)
    trials = options.seeds * len(RECIPE["arms"])
    every = sorted(os.sched_getaffinity(0))
    one, two = every[:1], every[:2]
    ways: dict[str, Callable[[], Ran]] = {
        "one cold process per trial": lambda: cold(recipe, one, options),
        "queue": lambda: study(recipe, one, options, workers=1),
        "pool of 2": lambda: study(recipe, two, options, workers=2),
    }
    found: dict[str, list[Ran]] = defaultdict(list)
    for _ in range(options.rounds):
        for name, way in ways.items():
            found[name].append(way())
    print(f"\n{trials} trials of {options.epochs} epochs, median of {options.rounds} round(s) in turn;")
    print("`running` leaves out what a command does before its first trial and after its last\n")
    head("executor", "cores", "seconds", "trials/hour", "running, trials/hour", "beside cold")
    base = statistics.median(ran.seconds for ran in found["one cold process per trial"])
    for name, runs in found.items():
        whole = statistics.median(ran.seconds for ran in runs)
        running = statistics.median(ran.running for ran in runs)
        width = len(two) if name.startswith("pool") else 1
        pace = f"{HOUR * trials / whole:.0f}", f"{HOUR * trials / running:.0f}"
        row(name, width, f"{whole:.1f}", *pace, f"{base / whole:.2f}×")
    if len(two) == 2:
        for what in ("seconds", "running"):
            pairs = zip(found["queue"], found["pool of 2"], strict=True)
            ratio = statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)
            print(f"two cores against one, {'whole command' if what == 'seconds' else what}: {ratio:.2f}×")
    turnover([ran.journals for ran in found["queue"]])


def turnover(queues: list[list[list[Event]]]) -> None:
    """Print what lies between two trials of a queue, by the times in their journals."""
    gaps: dict[str, list[float]] = defaultdict(list)
    for journals in queues:
        for before, after in pairwise(journals):
            trained = next(e for e in reversed(before) if e["event"] == "epoch")
            opened = next(e for e in after if e["event"] == "start")
            measured = next(e for e in after if e["event"] == "epoch")
            gaps["end of a trial → next one's loop: model, plan, weights"].append(
                opened["time"] - before[-1]["time"]
            )
            gaps["its evaluation before training"].append(measured["time"] - opened["time"])
            gaps["last figures → end: state, weights, pictures"].append(before[-1]["time"] - trained["time"])
    print("\nTurnover of the queue in seconds, by the journals' times\n")
    head("from → to", "median", "largest", "n")
    for name, seconds in gaps.items():
        row(name, f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}", len(seconds))


def study(recipe: dict[str, Any], cores: list[int], options: argparse.Namespace, *, workers: int) -> Ran:
    """Run a study by its command on some cores."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        file = root / "trials.yaml"
        file.write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "mimetic", "run", str(file), "--root", str(root / "runs")]
        command += ["--workers", str(workers), "--device", options.device]
        with on(cores):
            seconds, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
        (folder,) = studies(root / "runs")
        journals = [read_journal(path) for path in folder.glob("*/seed-*/journal.jsonl")]
    return Ran(seconds, sorted(journals, key=lambda events: events[0]["time"]))


def cold(recipe: dict[str, Any], cores: list[int], options: argparse.Namespace) -> Ran:
    """Train each trial in a process of its own, one after another."""
    loaded = load(recipe)
    with tempfile.TemporaryDirectory() as name:
        folder = start(Path(name), loaded, plan_arms(loaded), open_data(loaded))
        trials = [Trial(str(folder), arm, s, options.device) for s in loaded.seeds for arm in loaded.arms]
        command = [sys.executable, "-m", "mimetic.study.executors.worker"]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        seconds = 0.0
        with on(cores):
            for trial in trials:
                began = time.perf_counter()
                subprocess.run(
                    command,
                    input=f"{trial.to_json()}\nend\n",
                    env=surroundings,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                seconds += time.perf_counter() - began
        return Ran(seconds, [read_journal(trial.journal) for trial in trials])


@contextmanager
def on(cores: list[int]) -> Iterator[None]:
    """Hold the processes that are started inside to some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---------------------------------------------------------------------------------------------- tracking
def tracking(options: argparse.Namespace) -> None:
    """Time each call that tracks, where it is made, and compare with the wall time of a trial.

    The coordinator's calls are timed inside the study; a worker's writes are its journal written again,
    event by event, to the same disk. Two studies apart, tracked and offline, differ by more than that from
    round to round. The coordinator works beside the worker: on a core of its own its time holds nothing up,
    on a common one what it takes of the processor does.
    """
    recipe = load(_asked(options))
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with (
            _timing(MlflowTracker, ("sync", "finish"), spent),
            _timing(tracker, ("open_tracker", "_create_trial"), spent),
        ):
            result = run(recipe, root=root / "runs", workers=1, device=options.device)
        journals = [read_journal(path) for path in result.folder.glob("*/seed-*/journal.jsonl")]
        for events in journals:
            with Journal(root / "again.jsonl") as journal:
                _add(spent, "journal", lambda j=journal, e=events: _written(j, e))
    count = len(journals)
    wall = sum(events[-1]["seconds"] for events in journals) / count
    what = f"{count} trials of {options.epochs} epochs"
    print(f"\nTracking of {what} into a new sqlite store, {wall:.2f} s of wall time a trial\n")
    head("what", "seconds a trial", "share of its time", "of the processor", "share of its time")
    names = {
        "journal, in the worker": "journal",
        "mirroring while it runs, in the coordinator": "sync",
        "its run made up front, in the coordinator": "_create_trial",
    }
    for kind in ("", " of the processor"):
        spent[f"together{kind}"] = sum(spent[name + kind] for name in names.values())
    for what, name in {**names, "together": "together"}.items():
        each = [spent[name + kind] / count for kind in ("", " of the processor")]
        row(what, *(text for s in each for text in (f"{s:.4f}", f"{s / wall:.2%}")))
    once = spent["open_tracker"] - spent["_create_trial"]
    print(
        f"once a study: {once:.2f} s to open the store, {spent['finish']:.2f} s for the comparison and ends"
    )


def _add(spent: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Do some work, add up its seconds and those of the processor, and return what it returns."""
    before = time.process_time()
    seconds, result = timed(work)
    spent[name] += seconds
    spent[f"{name} of the processor"] += time.process_time() - before
    return result


def _written(journal: Journal, events: list[Event]) -> None:
    for event in events:
        journal.write(event["event"], **{k: v for k, v in event.items() if k not in {"event", "time"}})


@contextmanager
def _timing(owner: type, names: tuple[str, ...], spent: dict[str, float]) -> Iterator[None]:
    """Add up the seconds spent in some methods of a class."""
    plain = {name: getattr(owner, name) for name in names}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return _add(spent, name, lambda: plain[name](*arguments, **named))

        return call

    for name in names:
        setattr(owner, name, wrapped(name))
    try:
        yield
    finally:
        for name, method in plain.items():
            setattr(owner, name, method)


# ---------------------------------------------------------------------------------------------- costs
def costs(options: argparse.Namespace) -> None:
    """Fit seconds = a + b · n to the whole command for epochs, arms and seeds on one core."""
    one = sorted(os.sched_getaffinity(0))[:1]
    print("\nSeconds of the whole command on one core, seconds = a + b · n by least squares\n")
    head("n", "seconds at each n", "a", "b", "largest residual", words=2)
    for axis, places in COSTS.items():
        seconds = [study(_sized(**{axis: n}), one, options, workers=1).seconds for n in places]
        intercept, slope = _line(places, seconds)
        rest = max(abs(s - intercept - slope * n) for n, s in zip(places, seconds, strict=True))
        shown = ", ".join(f"{n}: {s:.1f}" for n, s in zip(places, seconds, strict=True))
        row(axis, shown, f"{intercept:.2f}", f"{slope:.2f}", f"{rest:.2f}")


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {**_sized(epochs=options.epochs, seeds=options.seeds), "arms": RECIPE["arms"]}


def _sized(*, epochs: int = 2, arms: int = 1, seeds: int = 1) -> dict[str, Any]:
    return {
        **RECIPE,
        "train": {**RECIPE["train"], "epochs": epochs},
        "seeds": seeds,
        "arms": {f"arm-{number}": {} for number in range(arms)},
    }


def _line(places: tuple[int, ...], values: list[float]) -> tuple[float, float]:
    slope, intercept = statistics.linear_regression(places, values)
    return intercept, slope


def _options() -> argparse.Namespace:
    found = parser(__doc__)
    names = ["rates", "tracking", "costs"]
    found.add_argument("--parts", nargs="+", choices=names, default=names)
    found.add_argument("--seeds", type=int, default=4, help="seeds of two arms each")
    found.add_argument("--epochs", type=int, default=4, help="epochs of a trial, for rates and tracking")
    found.add_argument("--rounds", type=int, default=1, help="how often each executor runs")
    found.add_argument("--device", default="cpu", help="auto, cpu, cuda, …")
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(main())
