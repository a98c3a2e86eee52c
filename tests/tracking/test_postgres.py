"""A study over HTTP against MLflow's server on PostgreSQL, which is killed and started again meanwhile."""

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mimetic
from mimetic.errors import RunError
from mimetic.journal import history, read_journal
from mimetic.study import tracker
from mimetic.study.layout import trials_of
from mimetic.tracking import uploader
from mimetic.tracking.store import import_mlflow

from .servers import WatchedExecutor, mlflow_server, postgres

RECIPE: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2},
    "data": {"type": "digits", "train_size": 64, "test_size": 32},
    "train": {"epochs": 6, "batch_size": 32},
    "seeds": 2,
    "arms": {"default": {}, "larger": {"model": {"dim": 12}}},
}
DOWN_FROM, DOWN_TO = 9, 14
"""Steps of the study between which the server is away."""


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_a_server_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric of every trial is there once, with the journals' values, and so are runs and files."""
    monkeypatch.setattr("mimetic.study.trials.trial.filter_pictures", lambda *_: {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(uploader, "LONGEST_PAUSE", 0.0)
    eager = partial(uploader.StudyUploader, interval=0.0, backoff=0.0)  # an upload at every step
    monkeypatch.setattr(tracker, "StudyUploader", eager)
    steps, errors, opened = 0, list[str](), threading.Event()
    opening, backing_off = tracker.open_tracker, uploader.StudyUploader._back_off

    def open_and_tell(*words: Any, **options: Any) -> tracker.Tracker:
        found = opening(*words, **options)
        opened.set()
        return found

    def note_error(self: uploader.StudyUploader, error: RunError) -> list[str]:
        errors.append(str(error))
        return backing_off(self, error)

    monkeypatch.setattr(tracker, "open_tracker", open_and_tell)
    monkeypatch.setattr(uploader.StudyUploader, "_back_off", note_error)

    with postgres() as database:
        server = mlflow_server(database, tmp_path)

        def watch() -> None:
            nonlocal steps
            steps += 1
            if steps == 1:
                assert opened.wait(60)
                time.sleep(0.2)  # until its thread has ended
            if steps == DOWN_FROM:
                threading.Timer(0.004, server.kill).start()  # while a request is on its way
            elif steps == DOWN_TO:
                server.kill()
                server.start()

        def pick(*_: object, **__: object) -> WatchedExecutor:
            return WatchedExecutor(watch)

        try:
            server.start()
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
            monkeypatch.setattr("mimetic.study.study.pick_executor", pick)
            result = mimetic.run(RECIPE, root=tmp_path / "root")
            assert errors, "the server was never missed"
            _check(server.address, result.folder)
        finally:
            server.kill()


def _check(address: str, folder: Path) -> None:
    """Compare what the server has with the journals."""
    client = import_mlflow().MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    names = sorted(run.info.run_name for run in runs)
    trials = trials_of(folder)
    assert names == sorted([*(f"{t.arm} · seed {t.seed}" for t in trials), f"summary · tiny/{folder.name}"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_name = {run.info.run_name: run for run in runs}
    for trial in trials:
        run = by_name[f"{trial.arm} · seed {trial.seed}"]
        events = read_journal(trial.journal)
        curves = history(events)
        curve = curves["test/acc"]
        best = max(curve, key=lambda epoch: (curve[epoch], -epoch))
        wanted = {key: sorted(points.items()) for key, points in curves.items()}
        wanted["best/test/acc"] = [(best, curve[best])]
        found = {
            key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        assert {key: sorted(points) for key, points in found.items()} == wanted
        files = {event["file"] for event in events if event["event"] == "artifact"}
        held = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {Path(file).parts[0] for file in files} | {"recipe"} <= held
