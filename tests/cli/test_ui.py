"""`mimetic ui`: prepared as it should be; no server is started here."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.tracking.store import open_store

Call = Callable[..., Result]

Started = list[tuple[str, list[str], dict[str, str]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Return what was to be started instead of starting it."""
    calls: Started = []
    monkeypatch.setattr(os, "execvpe", lambda *words: calls.append(words))
    return calls


def test_prepared(tmp_path: Path, call: Call, started: Started, empty_store: Callable[[Path], Path]) -> None:
    """One worker, no job runner, on the store of the root; the experiments' links are printed."""
    store = open_store(empty_store(tmp_path), experiment="tiny")
    result = call("ui", "--root", tmp_path, "--port", "8123")
    assert result.exit_code == 0, result.output
    ((program, words, environment),) = started
    assert program == words[0]
    assert words[1:5] == ["-P", "-m", "mlflow", "ui"]
    assert words[words.index("--workers") + 1] == "1"
    assert words[words.index("--backend-store-uri") + 1] == store.uri
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    port = words[words.index("--port") + 1]
    lines = result.stdout.splitlines()
    assert lines[0] == f"MLflow on {store.uri}"
    assert lines[1].startswith(f"tiny: http://127.0.0.1:{port}/#/experiments/{store.experiment_id}/runs")
    assert lines[2] == "Ctrl-C ends it"


def test_before_any_run(tmp_path: Path, call: Call, started: Started) -> None:
    """A root that is not there is not made."""
    result = call("ui", "--root", tmp_path / "none")
    assert result.exit_code == 2
    assert "[MIM-X070]" in result.stderr
    assert not (tmp_path / "none").exists()
    assert started == []


def test_wrong_store(tmp_path: Path, call: Call, started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names no store is said, with what it may be."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense")
    result = call("ui", "--root", tmp_path)
    assert result.exit_code == 2
    assert "$MLFLOW_TRACKING_URI is `nonsense`" in result.stderr
    assert started == []
