"""A study that ran offline, or whose store broke, is mirrored later, once, whatever became of its trials."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mimetic.errors import RunError, UserError
from mimetic.journal import Journal, history, read_journal
from mimetic.recipe.load import load
from mimetic.study import study as studying
from mimetic.study.layout import Trial
from mimetic.study.locks import locked_study
from mimetic.study.planning.arms import plan_arms
from mimetic.study.study_folder import start
from mimetic.study.sync import sync
from mimetic.tracking import store as stores

from .conftest import PLAIN

TINY: dict[str, Any] = {
    **PLAIN,
    "model": {**PLAIN["model"], "dim": 4, "depth": 1},
    "train": {"epochs": 2, "batch_size": 32},
    "arms": {"default": {}, "other": {}},
}


@pytest.fixture
def folder(tmp_path: Path, empty_store: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an offline study: one trial finished, one failed, one was cut off, one never started."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    empty_store(tmp_path)
    recipe = load(TINY)
    made = start(tmp_path, recipe, plan_arms(recipe), {"arms/default": "d", "arms/other": "d"})
    tell(made, "default", 0, epochs=3, end="FINISHED")
    tell(made, "default", 1, epochs=2, end=None)
    tell(made, "other", 0, epochs=1, end="FAILED")
    return made


def tell(folder: Path, arm: str, seed: int, *, epochs: int, end: str | None) -> None:
    """Write the journal of a trial."""
    with Journal(Trial(str(folder), arm, seed).journal) as journal:
        journal.write("start", arm=arm, seed=seed)
        for epoch in range(epochs):
            metrics = {"test/acc": 0.1 * epoch + seed, "test/loss": 1.0, "epoch_seconds": 1.0}
            journal.write("epoch", epoch=epoch, step=epoch, metrics=metrics)
        if end is not None:
            journal.write("end", status=end, reason=None, seconds=1.0)


def stored(root: Path) -> tuple[list[tuple[str, ...]], list[tuple[Any, ...]]]:
    """Return the runs with how they ended, and every point of every metric of a trial."""
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        runs = database.execute(
            "select r.name, r.status from runs r where r.lifecycle_stage = 'active' order by r.name"
        ).fetchall()
        points = database.execute(
            "select r.name, m.key, m.step, m.value, m.is_nan from metrics m join runs r using (run_uuid) "
            "where r.name not like 'summary%' order by 1, 2, 3"
        ).fetchall()
        (whole,) = database.execute("pragma integrity_check").fetchone()
    assert whole == "ok"
    return runs, points


def test_everything_is_mirrored_once(folder: Path, tmp_path: Path) -> None:
    """Metrics of the journals, honest ends, the summary; a second time changes nothing."""
    result = sync(folder, root=tmp_path)
    runs, points = stored(tmp_path)

    assert [ended for _, ended in runs] == ["FINISHED", "KILLED", "FAILED", "KILLED", "KILLED"]
    assert [name for name, _ in runs][:2] == ["default · seed 0", "default · seed 1"]
    assert sorted(result.statuses.values()) == ["FAILED", "FINISHED", "PENDING", "RUNNING"]
    curves = history(read_journal(folder / "default" / "seed-0" / "journal.jsonl"))
    mine = {(key, step): value for name, key, step, value, _ in points if name == "default · seed 0"}
    logged = {(key, step): value for key, curve in curves.items() for step, value in curve.items()}
    assert mine == logged | {("best/test/acc", 2): 0.2}

    sync(folder, root=tmp_path)
    assert stored(tmp_path) == (runs, points)


def test_views_and_direction_follow_the_metric_of_the_study(
    tmp_path: Path, empty_store: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment's primary metric, the charts and the order of the runs, whatever `study.metric` says."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = load({**TINY, "study": {"metric": "test/loss"}})
    made = start(empty_store(tmp_path), recipe, plan_arms(recipe), {"arms/default": "d", "arms/other": "d"})
    sync(made, root=tmp_path)

    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        tags = dict(database.execute("select key, value from experiment_tags").fetchall())
    assert tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == "false"
    (view,) = (json.loads(text) for key, text in tags.items() if ".arms-" in key)
    state = json.loads(view["state"])
    assert state["compareRunCharts"][0]["metricKey"] == "test/loss"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`test/loss`", True)


def test_what_was_mirrored_goes_on_under_its_runs(folder: Path, tmp_path: Path) -> None:
    """Trials that end later end there too; a run torn while it was made is made again, and none is twice."""
    sync(folder, root=tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        torn = "run_uuid in (select run_uuid from runs where name = 'other · seed 1')"
        database.execute(f"delete from tags where key = 'mimetic.whole' and {torn}")  # noqa: S608
        database.execute(f"delete from params where {torn}")  # noqa: S608
    tell(folder, "default", 1, epochs=3, end="FINISHED")
    tell(folder, "other", 1, epochs=3, end="FINISHED")
    sync(folder, root=tmp_path)
    runs, points = stored(tmp_path)

    assert [ended for _, ended in runs] == ["FINISHED", "FINISHED", "FAILED", "FINISHED", "KILLED"]
    assert len(points) == len({point[:3] for point in points})
    whole = ("default · seed 0", "default · seed 1", "other · seed 1")
    assert {(name, step) for name, _, step, _, _ in points} == {
        *((name, step) for name in whole for step in range(3)),
        ("other · seed 0", 0),
    }


def test_a_running_study_and_no_study_are_refused(folder: Path, tmp_path: Path) -> None:
    """Its own process mirrors it; a folder without a record holds none."""
    with pytest.raises(UserError, match=r"it has no study\.json"):
        sync(folder.parent, root=tmp_path)
    with locked_study(folder), pytest.raises(UserError, match="is being run by another process"):
        sync(folder, root=tmp_path)


def test_a_store_that_is_away_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost: the journals stay, and the next attempt sends them."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RunError, match="tracking store http://127"):
        sync(folder, root=tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(folder, root=tmp_path).link is not None


class Listener:
    """A display that does something once, after the first epoch, and keeps what the user is told."""

    def __init__(self, act: Callable[[], object]) -> None:
        """Keep what to do."""
        self.act: Callable[[], object] | None = act
        self.said: list[str] = []

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Take in nothing."""

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Act."""
        if self.act is not None and any(event.get("epoch") == 1 for event in events):
            self.act()
            self.act = None

    def message(self, text: str) -> None:
        """Keep a message."""
        self.said.append(text)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[Callable[[], object]]:
    """Lock the store, for as long as the block lasts."""
    with contextlib.closing(sqlite3.connect(database)) as other:
        yield lambda: other.execute("begin exclusive")


@contextlib.contextmanager
def moved(database: Path) -> Iterator[Callable[[], object]]:
    """Move the store away, and back when the block ends."""
    away = database.parent / "away"
    yield lambda: [away.mkdir(), *(file.rename(away / file.name) for file in database.parent.glob("mlflow*"))]
    for file in away.iterdir():
        file.rename(database.parent / file.name)


@contextlib.contextmanager
def deleted(database: Path) -> Iterator[Callable[[], object]]:
    """Delete the store."""
    yield lambda: [file.unlink() for file in database.parent.glob("mlflow*")]


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (locked, "database is locked; another process holds it"),
        pytest.param(moved, "was deleted, moved or replaced while in use", marks=pytest.mark.slow),
        pytest.param(deleted, "was deleted, moved or replaced while in use", marks=pytest.mark.slow),
    ],
)
def test_a_store_that_breaks_costs_no_trial(
    breaks: Any,
    told: str,
    *,
    in_this_process: Any,
    empty_store: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The study goes on and says what mends it; then the store holds exactly what the journals hold."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(studying, "world_size", lambda: 2)  # it trains itself: the store is open first
    monkeypatch.setattr(stores, "WRITE_TIMEOUT", 0.05)
    empty_store(tmp_path)
    with breaks(tmp_path / "mlflow.db") as now, in_this_process():
        listener = Listener(now)
        result = studying.run(load({**TINY, "seeds": 1}), root=tmp_path, display=listener)

    assert listener.act is None
    assert result.complete
    assert result.link is None
    assert len([text for text in listener.said if told in text]) == 1, listener.said
    assert listener.said[-1].endswith(
        "is not tracked in full; `mimetic sync` copies the journals once the store works"
    )
    if breaks is deleted:  # in a process of its own: this one has the file open for good
        command = [sys.executable, "-m", "mimetic", "sync", "--root", str(tmp_path)]
        root = str(Path(__file__).parents[2])
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": root})
    else:
        assert sync(result.folder, root=tmp_path).link is not None
    runs, points = stored(tmp_path)
    assert [ended for _, ended in runs] == ["FINISHED"] * 3
    for path in result.folder.rglob("journal.jsonl"):
        arm, seed = path.parts[-3:-1]
        curves = history(read_journal(path))
        mine = {
            (k, step): value
            for name, k, step, value, _ in points
            if name == f"{arm} · {seed.replace('-', ' ')}" and not k.startswith("best/")
        }
        assert mine == {(key, step): value for key, curve in curves.items() for step, value in curve.items()}
    assert len(points) == len({point[:3] for point in points})
