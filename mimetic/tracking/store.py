"""The store: an MLflow database below the root, created once, by one process.

Processes that race to create a fresh sqlite file leave it unusable, as does one that is killed half-way, so
creation holds a file lock and puts the finished file in its place. The file is put into WAL mode, which lets
the interface read while a study writes.
"""

import os
import re
import sqlite3
import warnings
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mimetic.errors import RunError, UserError
from mimetic.tracking.mlflow_import import import_mlflow
from mimetic.tracking.trouble import describe, redacted, store_trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
EXPERIMENT_TAG_LIMIT = 20_000
PATIENCE = 60.0
"""Seconds to wait for another process that creates the store."""
LOCK_PATIENCE = 5.0
"""Seconds to wait for another process that writes to it."""

_REMOTE = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True, slots=True)
class Store:
    """An open store and the experiment runs are put into.

    Attributes:
        uri: Tracking URI, absolute.
        client: MLflow's client of it.
        experiment_id: Id of the experiment.
        experiment: Its name.
        file: Which file a sqlite store was opened in: its device and number.
    """

    uri: str
    client: "MlflowClient"
    experiment_id: str
    experiment: str
    file: tuple[int, int] | None = None

    def check(self) -> None:
        """Fail at once where a sqlite store cannot take anything now; of other stores nothing is known.

        A file that was deleted or moved would take everything without a word: it is open still. One that
        is locked would hold the caller up for twenty seconds.

        Raises:
            RunError: With the repair.
        """
        path = sqlite_path(self.uri)
        if path is None or self.file is None:
            return
        if _number(path) != self.file:
            raise RunError(
                f"tracking store {self.uri}: its file was deleted, moved or replaced while in use; "
                "put it back, or leave it and a new one is made"
            )
        _check(path)


def tracking_uri(root: str | os.PathLike[str]) -> str:
    """Return $MLFLOW_TRACKING_URI, or the sqlite database below the root; always absolute.

    Raises:
        UserError: If the environment names a store MLflow no longer has or we do not know.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not chosen:
        return f"sqlite:///{Path(root).resolve() / DATABASE}"
    scheme = chosen.partition(":")[0].partition("+")[0].lower() if "://" in chosen else ""
    if scheme == "sqlite":
        return f"sqlite:///{_sqlite_file(chosen).resolve()}"
    if scheme in (*_REMOTE, *_DATABASES) or chosen.startswith("databricks"):
        return chosen
    raise UserError(
        f"$MLFLOW_TRACKING_URI is `{redacted(chosen)}`: MLflow keeps no runs in plain folders any more; "
        "set it to http://…, sqlite:////absolute/file.db or a database, or unset it"
    )


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a sqlite URI, None for other stores."""
    return _sqlite_file(uri) if uri.startswith("sqlite") else None


def connect(root: str | os.PathLike[str]) -> tuple[str, "MlflowClient"]:
    """Open the store, creating it where it is missing, and return its URI and a client.

    Raises:
        UserError: If $MLFLOW_TRACKING_URI cannot be used.
        RunError: If the store is unreachable, locked, damaged or of another MLflow, with the repair.
    """
    uri = tracking_uri(root)
    mlflow = import_mlflow()
    with store_trouble(uri):
        path = sqlite_path(uri)
        if path is None:
            client = _client(mlflow, uri)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE):
                    _check(path)
                    if not path.exists():
                        _create(mlflow, path)
                    client = _client(mlflow, uri)
                    _write_ahead(path)
            except Timeout:
                message = "another process has been creating it for a minute; end that one and try again"
                raise RunError(f"tracking store {uri}: {message}") from None
    return uri, client


def open_store(
    root: str | os.PathLike[str], *, experiment: str, note: str | None = None, metric: str | None = None
) -> Store:
    """Open the store and get or create an experiment in it.

    Args:
        root: Folder of the runs; artifacts of a local store land below it.
        experiment: Name of the experiment: the recipe's.
        note: Text under its title.
        metric: Metric the arms are compared by, e.g. `test/acc`.

    Raises:
        UserError: If $MLFLOW_TRACKING_URI cannot be used.
        RunError: If the store does not work, with the repair.
    """
    uri, client = connect(root)
    with store_trouble(uri):
        found = _experiment(client, experiment, artifacts=_artifacts(uri, root, experiment))
        for key, value in _experiment_tags(note, metric).items():
            client.set_experiment_tag(found, key, value)
    path = sqlite_path(uri)
    return Store(uri, client, found, experiment, None if path is None else _number(path))


def _experiment(client: Any, name: str, *, artifacts: str | None) -> str:
    """Return the id of the experiment of this name; whoever creates it first, all get the same one."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _experiment_tags(note: str | None, metric: str | None) -> dict[str, str]:
    tags = {"mlflow.experimentKind": "custom_model_development"}  # the interface opens on charts, not chats
    if note:
        tags["mlflow.note.content"] = note[:EXPERIMENT_TAG_LIMIT]
    if metric is not None:
        tags["mlflow.experiment.primaryMetric.name"] = metric
        tags["mlflow.experiment.primaryMetric.greaterIsBetter"] = str(metric.endswith("acc")).lower()
    return tags


def _artifacts(uri: str, root: str | os.PathLike[str], experiment: str) -> str | None:
    """Return where artifacts go: below the root for a local file, the server's own choice otherwise.

    MLflow's default would be a folder of whatever directory the command was started in.
    """
    if sqlite_path(uri) is None:
        return None
    folder = re.sub(r"[^A-Za-z0-9._-]", "_", experiment)
    return (Path(root).resolve() / "artifacts" / folder).as_uri()


def _client(mlflow: Any, uri: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy deprecates what MLflow's tables use
        client = mlflow.MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # the client is lazy: here the store is opened
    return client


def _create(mlflow: Any, path: Path) -> None:
    """Make a store beside its place and put it there whole: a process killed meanwhile leaves no torn one."""
    fresh = path.with_name(f".{path.name}.new")
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    client = _client(mlflow, f"sqlite:///{fresh}")
    client._tracking_client.store.engine.dispose()  # noqa: SLF001 - nothing may have the file open any more
    fresh.replace(path)


def _number(path: Path) -> tuple[int, int] | None:
    """Return which file lies at a path, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check(path: Path) -> None:
    """Fail at once on a file that is locked or no database: MLflow would retry for minutes."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise RunError(describe(error, uri=f"sqlite:///{path}")) from error


def _write_ahead(path: Path) -> None:
    """Let readers and the writer work at once; a file system that cannot keeps the default."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=LOCK_PATIENCE)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _sqlite_file(uri: str) -> Path:
    return Path(uri.partition("://")[2].removeprefix("/").partition("?")[0])
