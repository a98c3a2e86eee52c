"""Eight processes log to one sqlite store for ten minutes, while somebody looks at it: is anything lost?

    python benchmarks/store.py [--minutes 10] [--processes 8]

By design workers write journals and one process uploader them, so the store has one writer whatever the
number of workers. Each process here writes epochs as fast as a very short trial would. At the end the store
must hold every point of every journal once, and the user must have read of no trouble. Exit code 1 otherwise.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mimetic.journal import Journal, read_journal
from mimetic.tracking import runs
from mimetic.tracking.store import Store, open_store, sqlite_path
from mimetic.tracking.uploader import StudyUploader

METRICS = ("train/loss", "train/acc", "test/loss", "test/acc", "lr", "images_per_second")


def write(path: Path, seconds: float, pause: float) -> None:
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


def look(uri: str, seconds: float) -> None:
    """Read runs and their curves again and again, as the interface does; says how often."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    deadline = time.monotonic() + seconds
    looks = 0
    while time.monotonic() < deadline:
        for run in client.search_runs(["1"], max_results=50):
            client.get_metric_history(run.info.run_id, "test/acc")
        looks += 1
        time.sleep(1.0)
    print(looks)


def mirror(store: Store, folder: Path, options: argparse.Namespace) -> tuple[list[str], float, list[str]]:
    """Start the writers and a reader, mirror until all have ended; return runs, seconds inside, messages."""
    seconds = 60 * options.minutes
    uploader, ids, processes = StudyUploader(), [], []
    here = [sys.executable, str(Path(__file__).resolve())]
    for number in range(options.processes):
        path = folder / f"trial-{number}" / "journal.jsonl"
        ids.append(runs.create_run(store, runs.NewRun(study="bench", arm="a", seed=number, params={})))
        uploader.add(store, ids[-1], path)
        processes.append(
            subprocess.Popen(
                [*here, "--write", str(path), "--seconds", str(seconds), "--pause", str(options.pause)]
            )
        )
    reader = subprocess.Popen([*here, "--look", store.uri, "--seconds", str(seconds)], stdout=subprocess.PIPE)
    said: list[str] = []
    inside = 0.0
    while any(process.poll() is None for process in processes):
        began = time.perf_counter()
        said += uploader.upload()
        inside += time.perf_counter() - began
        time.sleep(0.2)
    said += uploader.finish("cut off")
    looks = reader.communicate()[0].decode().strip()
    print(f"a reader looked {looks} times")
    return ids, inside, said


def check(store: Store, ids: list[str], folder: Path) -> int:
    """Return how many points are missing, twice there or of another value."""
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
            (key, p.step, p.value) for key in METRICS for p in store.client.get_metric_history(run, key)
        )
        wrong += sum(((written - stored) + (stored - written)).values())
        wrong += store.client.get_run(run).info.status != "FINISHED"
    return wrong


def main() -> int:
    """Log, check and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between a process's epochs")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        write(options.write, options.seconds, options.pause)
        return 0
    if options.look is not None:
        look(options.look, options.seconds)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_store(folder, experiment="bench")
        ids, inside, said = mirror(store, folder, options)
        wrong = check(store, ids, folder)
        size = sqlite_path(store.uri)
        points = sum(len(store.client.get_metric_history(run, key)) for run in ids for key in METRICS)
        print(
            f"{options.processes} processes, {options.minutes:g} min: {points} points stored, {wrong} wrong, "
            f"{len(said)} messages to the user, {inside:.1f} s in the mirror, "
            f"{0 if size is None else size.stat().st_size / 1e6:.1f} MB"
        )
        for text in said:
            print(f"  {text}")
    return 1 if wrong or said else 0


if __name__ == "__main__":
    sys.exit(main())
