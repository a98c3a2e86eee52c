"""Whether MLflow's store loses anything while several trials log."""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement import Column, Options, Result, Table, measurement, option
from mimetic.journal import Journal, read_journal
from mimetic.tracking import runs
from mimetic.tracking.store import Store, open_store, sqlite_path
from mimetic.tracking.uploader import StudyUploader

METRICS = ("train/loss", "train/acc", "test/loss", "test/acc", "lr", "images_per_second")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions(Options):
    """Flags of `store`."""

    minutes: float = option(10.0, "how long")
    processes: int = option(8, "processes that log")
    pause: float = option(0.5, "seconds between a process's epochs")


@measurement(takes="10 min", minutes=0.05, processes=2)
def store(options: StoreOptions) -> Result:
    """Log from eight processes into one store while it is read; is anything lost?

    Workers write journals and one process mirrors them, so the store has one writer whatever the number of
    workers. Each process writes epochs as fast as a very short trial would. At the end the store must hold
    every point of every journal once, and the user must have seen no message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = open_store(folder, experiment="bench")
        ids, inside, messages = _mirror(opened, folder, options)
        wrong = _differences(opened, ids, folder)
        size = sqlite_path(opened.uri)
        points = sum(len(opened.client.get_metric_history(run, key)) for run in ids for key in METRICS)
        megabytes = 0.0 if size is None else size.stat().st_size / 1e6
    columns = (
        Column("processes", "d"),
        Column("minutes", "g"),
        Column("points stored", ",d"),
        Column("missing, twice or wrong", "d"),
        Column("messages to the user", "d"),
        Column("in the mirror, s", ".1f"),
        Column("store, MB", ".1f"),
    )
    row = (options.processes, options.minutes, points, wrong, len(messages), inside, megabytes)
    failures = [f"{wrong} points are missing, twice there or wrong."] if wrong else []
    return Result((Table(columns, [row]),), failures=(*failures, *messages))


def _mirror(opened: Store, folder: Path, options: StoreOptions) -> tuple[list[str], float, list[str]]:
    """Start writers and a reader, mirror until all have ended; return runs, seconds inside, messages."""
    seconds = 60 * options.minutes
    uploader, ids, processes = StudyUploader(), [], []
    for number in range(options.processes):
        path = folder / f"trial-{number}" / "journal.jsonl"
        ids.append(runs.create_run(opened, runs.NewRun(study="bench", arm="a", seed=number, params={})))
        uploader.add(opened, ids[-1], path)
        processes.append(_start("write", path, seconds, options.pause))
    processes.append(_start("read", opened.uri, seconds, 1.0))
    messages: list[str] = []
    inside = 0.0
    while any(process.poll() is None for process in processes):
        started = time.perf_counter()
        messages += uploader.upload()
        inside += time.perf_counter() - started
        time.sleep(0.2)
    messages += uploader.finish("cut off")
    messages += [f"a process ended with {p.returncode}" for p in processes if p.returncode != 0]
    return ids, inside, messages


def _differences(opened: Store, ids: list[str], folder: Path) -> int:
    """Return how many points are missing, twice there or of another value, and how many runs are open."""
    wrong = 0
    for number, run in enumerate(ids):
        events = read_journal(folder / f"trial-{number}" / "journal.jsonl")
        written = Counter(
            (key, event["epoch"], value)
            for event in events
            if event["event"] == "epoch"
            for key, value in event["metrics"].items()
        )
        stored = Counter(
            (key, p.step, p.value) for key in METRICS for p in opened.client.get_metric_history(run, key)
        )
        wrong += sum(((written - stored) + (stored - written)).values())
        wrong += opened.client.get_run(run).info.status != "FINISHED"
    return wrong


# --------------------------------------------------------------------------------------------- processes
def _start(role: str, target: object, seconds: float, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.store", role, str(target), str(seconds), str(pause)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1])


def _write(path: Path, seconds: float, pause: float) -> None:
    """Write a journal: an epoch every `pause` seconds."""
    deadline = time.monotonic() + seconds
    epoch = 0
    with Journal(path) as journal:
        journal.write("start", device="cpu")
        while time.monotonic() < deadline:
            journal.write("epoch", epoch=epoch, step=epoch, metrics=dict.fromkeys(METRICS, 1.0 / (1 + epoch)))
            epoch += 1
            time.sleep(pause)
        journal.write("end", status="FINISHED", reason=None, seconds=seconds)


def _read(uri: str, seconds: float, pause: float) -> None:
    """Read runs and their curves again and again, as the interface does."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in client.search_runs(["1"], max_results=50):
            client.get_metric_history(run.info.run_id, "test/acc")
        time.sleep(pause)


if __name__ == "__main__":
    role, target, seconds, pause = sys.argv[1:]
    if role == "write":
        _write(Path(target), float(seconds), float(pause))
    else:
        _read(target, float(seconds), float(pause))
