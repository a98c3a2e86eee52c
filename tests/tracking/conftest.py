"""Folders of runs with an empty store, and journals written by hand."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mimetic.tracking.store import Store, open_store

Write = Callable[..., None]


@pytest.fixture
def root(empty_store: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of runs with an empty store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return empty_store(tmp_path / "mlruns")


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """Return an open store with the experiment `quickstart`."""
    opened = open_store(root, experiment="quickstart")
    yield opened
    _close(opened.client)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that appends events to a journal; each event is a minute after the one before."""

    def append(path: Path, *events: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes().count(b"\n") if path.exists() else 0
        with path.open("a", encoding="utf-8") as file:
            for number, event in enumerate(events):
                entry = {"time": 1000.0 + 60 * (before + number)} | event
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    return append


def _close(client: Any) -> None:
    """Close the connections MLflow keeps open for the life of the process."""
    client._tracking_client.store._dispose_engine()
