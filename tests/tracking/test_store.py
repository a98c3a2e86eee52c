"""The store: made once, opened quietly, and its failures said in one sentence."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from mimetic.errors import RunError, UserError
from mimetic.tracking import store as stores
from mimetic.tracking.store import Store, connect, open_store, tracking_uri

from .conftest import _close


def test_the_default_is_an_absolute_database_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative root names the same file wherever a later command is started."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    assert tracking_uri("mlruns") == f"sqlite:///{tmp_path}/mlruns/mlflow.db"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("http://tracker:5000", "http://tracker:5000"),
        ("postgresql://user:secret@host/db", "postgresql://user:secret@host/db"),
        ("postgresql+psycopg2://host/db", "postgresql+psycopg2://host/db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("sqlite:///runs.db", "sqlite:///{here}/runs.db"),
    ],
)
def test_the_environment_chooses_the_store(
    chosen: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$MLFLOW_TRACKING_URI wins, and a relative sqlite file becomes absolute."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", chosen)
    monkeypatch.chdir(tmp_path)

    assert tracking_uri("mlruns") == expected.format(here=tmp_path)


@pytest.mark.parametrize("chosen", ["./mlruns", "file:///srv/mlruns", "/data/mlruns"])
def test_folders_are_refused_as_stores(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow took its file store away; the message says what to set instead."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", chosen)

    with pytest.raises(UserError) as caught:
        tracking_uri("mlruns")

    assert f"`{chosen}`" in str(caught.value)
    assert "unset it" in str(caught.value)
    assert caught.value.exit_code == 2


def test_opening_twice_gives_the_same_experiment(store: Store, root: Path) -> None:
    """The experiment is made once."""
    again = open_store(root, experiment="quickstart")

    assert again.experiment_id == store.experiment_id


def test_an_experiment_tells_kind_note_and_metric(root: Path) -> None:
    """The interface opens on charts, with the note under the title."""
    opened = open_store(root, experiment="losses", note="What it shows.", metric="test/loss")

    tags = opened.client.get_experiment(opened.experiment_id).tags
    assert tags == {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": "What it shows.",
        "mlflow.experiment.primaryMetric.name": "test/loss",
        "mlflow.experiment.primaryMetric.greaterIsBetter": "false",
    }


@pytest.mark.parametrize(
    ("metric", "greater"), [("test/acc", "true"), ("test/acc_len64", "true"), ("val/loss_len64", "false")]
)
def test_the_direction_of_the_metric_is_its_definitions(root: Path, metric: str, greater: str) -> None:
    """Accuracies on probes are accuracies."""
    opened = open_store(root, experiment="directions", metric=metric)

    tags = opened.client.get_experiment(opened.experiment_id).tags
    assert tags["mlflow.experiment.primaryMetric.name"] == metric
    assert tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == greater


def test_artifacts_land_below_the_root(store: Store, root: Path) -> None:
    """MLflow's own default would be below the directory the command was started in."""
    location = store.client.get_experiment(store.experiment_id).artifact_location

    assert location == f"file://{root}/artifacts/quickstart"


def test_a_deleted_experiment_comes_back(store: Store, root: Path) -> None:
    """MLflow keeps the name of a deleted experiment taken; running the recipe again restores it."""
    store.client.delete_experiment(store.experiment_id)

    again = open_store(root, experiment="quickstart")

    assert again.experiment_id == store.experiment_id
    assert again.client.get_experiment(again.experiment_id).lifecycle_stage == "active"


def test_the_database_is_in_wal_mode(store: Store, root: Path) -> None:
    """The interface reads while a study writes."""
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_experiment_made_by_a_faster_process_is_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and creating, another process may have created it."""
    _, client = connect(root)
    there = client.create_experiment("race")
    look = client.get_experiment_by_name
    answers = iter([None])
    monkeypatch.setattr(client, "get_experiment_by_name", lambda name: next(answers, look(name)))

    assert stores._experiment(client, "race", artifacts=None) == there


_OPEN = """
import sys
from mimetic.tracking.store import open_store
print(open_store(sys.argv[1], experiment="e").experiment_id)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_processes_that_race_to_create_the_store_all_succeed(tmp_path: Path) -> None:
    """MLflow alone leaves the file unusable for good when two processes create it at once."""
    environment = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]

    said = [process.communicate(timeout=120) for process in processes]

    assert said == [("1\n", "")] * 3


@pytest.mark.slow
def test_a_store_whose_maker_was_killed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in its place is whole: until then there is a file beside, which the next one replaces."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "fresh"
    root.mkdir()

    def killed(*_: object) -> None:
        (root / ".mlflow.db.new-journal").write_bytes(b"torn")
        raise SystemExit

    (root / ".mlflow.db.new").write_bytes(b"torn")
    with monkeypatch.context() as patch:
        patch.setattr(stores, "_client", killed)
        with pytest.raises(SystemExit):
            stores.connect(root)
    assert not (root / "mlflow.db").exists()

    assert stores.open_store(root, experiment="x").experiment_id
    assert not list(root.glob(".mlflow.db.new*"))


def test_creating_a_store_is_silent(store_template: Path) -> None:
    """No log line, no warning, no progress of the schema's migrations."""
    assert (store_template / "output.txt").read_text() == ""


def test_a_damaged_database_is_said_at_once(root: Path) -> None:
    """MLflow would retry for two minutes and end in a traceback."""
    (root / "mlflow.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(RunError) as caught:
        connect(root)

    assert str(caught.value) == (
        f"tracking store sqlite:///{root}/mlflow.db: file is not a database; "
        "it is damaged: restore a backup or move it away, a new one is made"
    )


def test_a_database_of_another_mlflow_is_said_with_the_repair(root: Path) -> None:
    """The command to upgrade names the store."""
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")

    with pytest.raises(RunError) as caught:
        connect(root)

    assert "out-of-date database schema (found version 451aebb31d03" in str(caught.value)
    assert f"run `mlflow db upgrade sqlite:///{root}/mlflow.db`" in str(caught.value)


def test_a_locked_database_is_said_with_the_repair(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds it for longer than we wait."""
    monkeypatch.setattr(stores, "WRITE_TIMEOUT", 0.05)
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError) as caught:
            connect(root)

    assert "database is locked; another process holds it" in str(caught.value)


def test_a_root_that_is_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the runs cannot be made."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns").write_text("")

    with pytest.raises(RunError, match="tracking store sqlite:"):
        connect(tmp_path / "mlruns")


def test_a_server_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the server and the way to run without it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(RunError) as caught:
        connect(tmp_path)

    assert str(caught.value).startswith("tracking store http://user@127.0.0.1:9: ")
    assert str(caught.value).endswith("or run with --offline; the journals hold everything")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("original", ["moved", "copied"])
def test_a_root_that_was_moved_or_copied(original: str, root: Path, tmp_path: Path) -> None:
    """Its artifacts are read and written below the new root; nothing is written into the old one."""
    (tmp_path / "file.txt").write_text("before")
    there = tmp_path / "there"
    with open_and_close(root) as store:
        run_id = store.client.create_run(store.experiment_id).info.run_id
        store.client.log_artifact(run_id, str(tmp_path / "file.txt"))
    utils._artifact_repos_cache.clear()  # a later command has none
    if original == "moved":
        root.rename(there)
    else:
        shutil.copytree(root, there)
        shutil.rmtree(root / "artifacts")

    for _ in range(2):
        with open_and_close(there) as store:
            read = store.client.download_artifacts(run_id, "file.txt", str(tmp_path))
            assert Path(read).read_text() == "before"
            for run in (run_id, store.client.create_run(store.experiment_id).info.run_id):
                store.client.log_artifact(run, str(tmp_path / "file.txt"))
                assert store.client.get_run(run).info.artifact_uri.startswith((there / "artifacts").as_uri())
    assert not (root / "artifacts").exists()


def test_a_store_that_another_root_used_is_left_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By $MLFLOW_TRACKING_URI: its artifacts are where they were written."""
    other = tmp_path / "other"
    (other / "artifacts" / "quickstart").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        with open_and_close(other) as store:
            assert store.experiment == "quickstart"
    with open_and_close(root) as store:
        location = store.client.get_experiment(store.experiment_id).artifact_location
    assert location == (other / "artifacts" / "quickstart").as_uri()


@contextmanager
def open_and_close(root: Path) -> Iterator[Store]:
    """Open a store with an experiment, and close the connections that MLflow keeps open."""
    store = open_store(root, experiment="quickstart")
    try:
        yield store
    finally:
        _close(store.client)
