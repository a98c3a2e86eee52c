"""Trials as Ray tasks on a cluster of two machines, which here are two nodes of one machine."""

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mimetic.errors import UserError
from mimetic.journal import read_journal
from mimetic.recipe.load import load
from mimetic.recipe.saved import write_recipe
from mimetic.study.config import Ray
from mimetic.study.executors.ray import check_cluster, connect, train_one
from mimetic.study.layout import Trial
from mimetic.study.study import run

TINY: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 1},
    "data": {"type": "digits", "train_size": 320, "test_size": 32},
    "train": {"epochs": 40, "batch_size": 32, "checkpoint": {"every": 10, "minutes": 0.002}},
    "seeds": 2,
    "arms": {"default": {}},
}
LOSS_IS_NOTICED = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
"""Ray asks a machine five times whether it lives: every three seconds by itself, every second here."""


class Watcher:
    """A display that loses a machine once, while it trains."""

    def __init__(self, cluster: Any) -> None:
        """Keep whose second machine it is."""
        self.cluster, self.lost = cluster, None

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Take in nothing."""

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Act when the trial on the second machine has come some way."""
        if self.lost is None and any(event.get("epoch", 0) >= 2 for event in events):
            processes = processes_of(self.cluster.second)
            if any(trial.journal in open_files(pid) for pid in processes):
                self.lost = trial
                for pid in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.cluster.remove_node(self.cluster.second, allow_graceful=False)

    def message(self, text: str) -> None:
        """Take in nothing."""


def processes_of(machine: Any) -> list[int]:
    """Return the processes of one of the machines, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found = [started.process.pid for group in machine.all_processes.values() for started in group]
    for pid in found:
        found += children.get(pid, [])
    return found


def open_files(pid: int) -> set[Path]:
    """Return what a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(entry.readlink())
    return found


def weights(folder: Path) -> dict[str, str]:
    """Return a digest of the final weights of every trial."""
    found = sorted(folder.rglob("weights.safetensors"))
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a Ray cluster of two nodes of one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    root = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = started(Cluster)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def started(factory: Any) -> Any:
    """Start the cluster; on a busy machine Ray gives its processes too little time, and is asked again."""
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": LOSS_IS_NOTICED}
    for _ in range(3):
        made = factory()
        try:
            made.add_node(**head)
            made.second = made.add_node(num_cpus=1)
        except Exception as error:  # noqa: BLE001 - Ray raises just that
            made.shutdown()
            trouble = error
        else:
            return made
    pytest.skip(f"Ray does not start on this machine: {trouble}")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_two_machines_one_of_which_is_lost(cluster: Any, tmp_path: Path) -> None:
    """Every trial ends with the bytes of the pool; the one of the lost machine goes on at the other."""
    straight = run(load(TINY), root=tmp_path / "pool", offline=True, workers=1)
    watcher = Watcher(cluster)
    over_there = {**TINY, "study": {"executor": "ray"}}
    result = run(
        load(over_there), root=tmp_path / "ray", offline=True, address=cluster.address, display=watcher
    )

    assert result.complete, [read_journal(p)[-1] for p in result.folder.rglob("journal.jsonl")]
    journals = {path: read_journal(path) for path in result.folder.rglob("journal.jsonl")}
    starts = {path: [e for e in events if e["event"] == "start"] for path, events in journals.items()}
    assert watcher.lost is not None
    (went_on,) = [path for path, begun in starts.items() if len(begun) > 1]
    assert went_on == watcher.lost.journal
    assert starts[went_on][1]["resumed_from_step"] > 0
    assert len(weights(result.folder)) == 2
    assert weights(result.folder) == weights(straight.folder)


@pytest.mark.slow
def test_a_worker_that_dies_says_how(tmp_path: Path) -> None:
    """Its exit code and its last words become the reason of the trial."""
    with pytest.raises(RuntimeError, match=r"its worker ended with exit code 1: .*JSONDecodeError"):
        train_one("no trial", {}, str(tmp_path / "log"))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_a_task_that_is_cancelled_stops_its_trial(tmp_path: Path) -> None:
    """Ray cancels as `interrupt_main` does, without a signal; the worker writes the end itself."""
    long = {**TINY, "train": {"epochs": 100_000, "batch_size": 32}}
    write_recipe(tmp_path, load(long))
    trial = Trial(str(tmp_path), "default", 0)

    def cancel() -> None:
        while not any(event.get("epoch") == 1 for event in read_journal(trial.journal)):
            time.sleep(0.1)
        _thread.interrupt_main()

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train_one(trial.to_json(), {}, str(tmp_path / "log"))

    end = read_journal(trial.journal)[-1]
    assert (end["event"], end["status"], end["reason"]) == ("end", "KILLED", "interrupted")


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install") as caught:
        connect(None)
    assert caught.value.code == "MIM-Y130"


def test_a_sqlite_store_is_refused_beside_several_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repair is a server, or to run offline; machines that left do not count."""
    machines = {
        "one": SimpleNamespace(nodes=lambda: [{"Alive": True}, {"Alive": False}]),
        "two": SimpleNamespace(nodes=lambda: [{"Alive": True}, {"Alive": True}, {"Alive": False}]),
    }
    monkeypatch.setattr("mimetic.study.executors.ray.connect", machines.get)

    check_cluster(Ray(), address="one", store="sqlite:////runs/mlflow.db")
    check_cluster(Ray(), address="two", store="http://there:5000")
    check_cluster(Ray(), address="two", store=None)
    with pytest.raises(UserError, match="2 machines") as caught:
        check_cluster(Ray(), address="two", store="sqlite:////runs/mlflow.db")
    assert caught.value.code == "MIM-Y133"
