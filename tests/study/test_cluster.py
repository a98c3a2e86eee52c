"""Trials as Ray tasks on a cluster of two machines, which here are two nodes of one machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mimetic.errors import UserError
from mimetic.journal import read_journal
from mimetic.recipe import load
from mimetic.study.cluster import check_store
from mimetic.study.layout import Trial
from mimetic.study.study import run

TINY: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 1},
    "data": {"type": "digits", "train_size": 320, "test_size": 32},
    "train": {"epochs": 8, "batch_size": 32, "checkpoint": {"minutes": 0.002}},
    "seeds": 2,
    "arms": {"default": {}, "other": {"train": {"optimizer": {"type": "sgd", "lr": 0.1}}}},
}


class Watcher:
    """A display that does something once, when a trial has come some way."""

    def __init__(self, act: Any) -> None:
        """Keep what to do."""
        self.act, self.said = act, []

    def begin(self, study: Path, trials: Sequence[Trial]) -> None:
        """Take in nothing."""

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Act at the second epoch of whichever trial is first."""
        if self.act is not None and any(event.get("epoch") == 2 for event in events):
            self.act()
            self.act = None

    def say(self, text: str) -> None:
        """Keep a message."""
        self.said.append(text)


def weights(folder: Path) -> dict[str, str]:
    """Return a digest of the final weights of every trial."""
    found = sorted(folder.rglob("weights.safetensors"))
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a Ray cluster of two nodes of one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_machines_one_of_which_is_lost(cluster: Any, tmp_path: Path) -> None:
    """Every trial ends with the bytes of the pool; those of the lost machine go on at the other."""
    straight = run(load(TINY), root=tmp_path / "pool", offline=True, workers=2)
    watcher = Watcher(lambda: cluster.remove_node(cluster.second, allow_graceful=False))
    over_there = {**TINY, "study": {"executor": "ray"}}
    result = run(
        load(over_there), root=tmp_path / "ray", offline=True, address=cluster.address, display=watcher
    )

    assert watcher.act is None
    assert result.complete, [read_journal(p)[-1] for p in result.folder.rglob("journal.jsonl")]
    assert weights(result.folder) == weights(straight.folder)


def test_a_sqlite_store_is_refused_beside_several_machines() -> None:
    """The repair is a server, or to run offline; machines that left do not count."""
    two = SimpleNamespace(nodes=lambda: [{"Alive": True}, {"Alive": True}, {"Alive": False}])
    one = SimpleNamespace(nodes=lambda: [{"Alive": True}, {"Alive": False}])

    check_store(one, "sqlite:////runs/mlflow.db")
    check_store(two, "http://there:5000")
    with pytest.raises(UserError, match=r"a disk 2 machines share, .* an MLflow server .* `mimetic sync`"):
        check_store(two, "sqlite:////runs/mlflow.db")
