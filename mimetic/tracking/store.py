"""Open the tracking store: an MLflow database below the root, or what $MLFLOW_TRACKING_URI names.

Processes that race to create a fresh sqlite file leave it unusable, and so does one that is killed half-way.
So creation holds a file lock, and the finished file is moved into place. The file is put into WAL mode, so
the UI can read while a study writes.
"""

import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from filelock import FileLock, Timeout

from mimetic.errors import RunError, UserError
from mimetic.metrics import metric as metric_of
from mimetic.printable import plain_markdown, truncate

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
"""Folder of the artifacts of a local store, below the root."""
EXPERIMENT_TAG_LIMIT = 20_000
NOTE = "mlflow.note.content"
"""Tag of the description that MLflow shows first on the page of a run or an experiment."""
CREATE_TIMEOUT = 60.0
"""Seconds to wait for another process that creates the store."""
WRITE_TIMEOUT = 5.0
"""Seconds to wait for another process that writes to it."""

_SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_LONGEST = 300
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 with backoff hang for minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow complains at import if there is no git
}
_REPAIRS = (
    ("out-of-date database schema", "back the file up, then run `mlflow db upgrade {uri}`"),
    ("can't locate revision", "a newer MLflow made it: install that version, or choose another --root"),
    ("already exists", "another process broke it while creating it: move the file away, a new one is made"),
    ("database is locked", "another process holds it: end that one, or run with --offline"),
    ("readonly database", "make it writable, or choose another --root"),
    ("unable to open database", "make its folder writable, or choose another --root"),
    ("not a database", "it is damaged: restore a backup or move it away, a new one is made"),
    ("malformed", "it is damaged: restore a backup or move it away, a new one is made"),
    ("no module named", "install the database's driver, or choose another store"),
    ("disk is full", "make room"),
    ("no space left", "make room"),
)
_OTHERWISE = "check $MLFLOW_TRACKING_URI, or run with --offline; the journals hold everything"


@dataclass(frozen=True, slots=True)
class Store:
    """An open store and the experiment that runs are logged to.

    Attributes:
        uri: Absolute tracking URI.
        client: MLflow's client for it.
        experiment_id: Id of the experiment.
        experiment: Its name.
        file: Device and inode of the file of a sqlite store.
    """

    uri: str
    client: "MlflowClient"
    experiment_id: str
    experiment: str
    file: tuple[int, int] | None = None

    def check(self) -> None:
        """Fail at once if a sqlite store cannot be written; other stores are not checked.

        A deleted or moved file would accept everything silently, because it is still open. A locked one
        would block the caller for twenty seconds.

        Raises:
            RunError: With the repair.
        """
        path = sqlite_path(self.uri)
        if path is None or self.file is None:
            return
        if _file_id(path) != self.file:
            raise RunError(
                f"tracking store {self.uri}: its file was deleted, moved or replaced while in use; "
                "put it back, or leave it and a new one is made",
                code="MIM-L001",
            )
        _check_writable(path)


def tracking_uri(root: str | os.PathLike[str]) -> str:
    """Return $MLFLOW_TRACKING_URI, or the sqlite database below the root; always absolute.

    Raises:
        UserError: If the environment names a store that MLflow does not support.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not chosen:
        return f"sqlite:///{Path(root).resolve() / DATABASE}"
    scheme = chosen.partition(":")[0].partition("+")[0].lower() if "://" in chosen else ""
    if scheme == "sqlite":
        file = _sqlite_file(chosen).resolve()
        if file.is_dir():
            raise UserError(
                f"$MLFLOW_TRACKING_URI is `{redacted(chosen)}`, a folder; name a file: "
                "sqlite:////absolute/file.db",
                code="MIM-L009",
            )
        return f"sqlite:///{file}"
    if scheme in (*_SERVERS, *_DATABASES) or chosen.startswith("databricks"):
        return chosen
    raise UserError(
        f"$MLFLOW_TRACKING_URI is `{redacted(chosen)}`: MLflow no longer stores runs in plain folders; "
        "set it to http://…, sqlite:////absolute/file.db or a database, or unset it",
        code="MIM-L002",
    )


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a sqlite URI, None for other stores."""
    return _sqlite_file(uri) if uri.startswith("sqlite") else None


def connect(root: str | os.PathLike[str]) -> tuple[str, "MlflowClient"]:
    """Open the store, create it if it is missing, and return its URI and a client.

    Raises:
        UserError: If $MLFLOW_TRACKING_URI cannot be used.
        RunError: If the store is unreachable, locked, damaged or of another MLflow, with the repair.
    """
    uri = tracking_uri(root)
    mlflow = import_mlflow()
    with store_errors(uri):
        path = sqlite_path(uri)
        if path is None:
            client = _client(mlflow, uri)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(path.with_name(f".{path.name}.lock"), timeout=CREATE_TIMEOUT):
                    _check_writable(path)
                    if not path.exists():
                        _create(mlflow, path)
                    client = _client(mlflow, uri)
                    _relocate(path, Path(root).resolve())
                    _write_ahead(path)
            except Timeout:
                raise RunError(
                    f"tracking store {uri}: another process has been creating it for a minute; end that "
                    "one and try again",
                    code="MIM-L003",
                ) from None
    return uri, client


def open_store(
    root: str | os.PathLike[str], *, experiment: str, note: str | None = None, metric: str | None = None
) -> Store:
    """Open the store and get or create an experiment in it.

    Artifacts of a local store are written below the root. `metric` is what the arms are compared by.

    Raises:
        UserError: If $MLFLOW_TRACKING_URI cannot be used.
        RunError: If the store does not work, with the repair.
    """
    uri, client = connect(root)
    with store_errors(uri):
        found = _experiment(client, experiment, artifacts=_artifacts(uri, root, experiment))
        known = client.get_experiment(found).tags
        for key, value in _experiment_tags(note, metric).items():
            if key != NOTE or NOTE not in known:  # the result of the latest study stays
                client.set_experiment_tag(found, key, value)
    path = sqlite_path(uri)
    return Store(uri, client, found, experiment, None if path is None else _file_id(path))


def _experiment(client: "MlflowClient", name: str, *, artifacts: str | None) -> str:
    """Get or create the experiment of this name; all processes get the same one."""
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
    tags = {"mlflow.experimentKind": "custom_model_development"}  # shown in the list of experiments
    if note:
        tags[NOTE] = plain_markdown(note)[:EXPERIMENT_TAG_LIMIT]
    if metric is not None:
        higher_is_better = metric_of(metric).higher_is_better
        tags["mlflow.experiment.primaryMetric.name"] = metric
        tags["mlflow.experiment.primaryMetric.greaterIsBetter"] = str(higher_is_better).lower()
    return tags


def _artifacts(uri: str, root: str | os.PathLike[str], experiment: str) -> str | None:
    """Return where artifacts are written: below the root for a local file, else the server's default.

    MLflow's default for a local file is below the current directory.
    """
    if sqlite_path(uri) is None:
        return None
    folder = re.sub(r"[^A-Za-z0-9._-]", "_", experiment)
    return (Path(root).resolve() / ARTIFACTS / folder).as_uri()


def _client(mlflow: ModuleType, uri: str) -> "MlflowClient":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy deprecates what MLflow's tables use
        client: MlflowClient = mlflow.MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # opens the store: the client is lazy
    return client


def _create(mlflow: ModuleType, path: Path) -> None:
    """Create a store beside its path and move it there: a kill leaves no partial store."""
    fresh = path.with_name(f".{path.name}.new")
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    client = _client(mlflow, f"sqlite:///{fresh}")
    client._tracking_client.store.engine.dispose()  # noqa: SLF001 - close the file
    fresh.replace(path)


def _file_id(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_writable(path: Path) -> None:
    """Fail at once on a file that is locked or not a database: MLflow would retry for minutes."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=WRITE_TIMEOUT, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise RunError(describe(error, uri=f"sqlite:///{path}"), code="MIM-L004") from error


def _relocate(path: Path, root: Path) -> None:
    """Correct the artifact locations of a store that was moved or copied with its root: they are absolute."""
    if path.resolve().parent != root:  # a database of the environment, for whatever roots
        return
    with closing(sqlite3.connect(path, timeout=WRITE_TIMEOUT)) as connection, connection:
        rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        for experiment, location in rows:
            before = Path(unquote(str(location).removeprefix("file://")))
            is_ours = str(location).startswith("file:///") and before.parent.name == ARTIFACTS
            if not is_ours or before.parents[1] == root:
                continue
            if before.is_dir() and not (before.parents[1] / DATABASE).exists():
                continue  # another root, which used this store by $MLFLOW_TRACKING_URI
            now, start = (root / ARTIFACTS / before.name).as_uri(), len(location) + 1
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, experiment)
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (now, start, experiment, start, f"{location}/"),
            )


def _write_ahead(path: Path) -> None:
    """Let readers and the writer work concurrently, if the file system supports it."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=WRITE_TIMEOUT)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _sqlite_file(uri: str) -> Path:
    return Path(uri.partition("://")[2].removeprefix("/").partition("?")[0])


def import_mlflow() -> ModuleType:
    """Import MLflow without telemetry and log lines, and with bounded waits for servers.

    It takes a second and a hundred megabytes, so nothing imports it before a store is opened. Settings in the
    user's environment take precedence.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies, at import
        import mlflow
        import mlflow.tracking

    for name in ("mlflow", "alembic", "sqlalchemy"):  # MLflow sets their levels at import
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn failures of the store inside the block into a RunError with the repair.

    MLflow raises its own exceptions and passes on those of SQLAlchemy, alembic, sqlite and requests.
    """
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (
        MlflowException,
        SQLAlchemyError,
        CommandError,
        sqlite3.Error,
        OSError,
        ModuleNotFoundError,
    ) as error:
        raise RunError(describe(error, uri=uri), code="MIM-L004") from error


def describe(error: BaseException, *, uri: str) -> str:
    """Return one sentence: the store, what happened, and the repair."""
    text = " ".join(str(error).split()).replace(uri, redacted(uri))
    repair = next((repair for sign, repair in _REPAIRS if sign in text.lower()), _OTHERWISE)
    # SQLAlchemy and requests append pages of context
    for noise in (" [SQL:", " (Background on this error", " NOTE: ", " Take a backup"):
        text = text.partition(noise)[0]
    text = text.strip().rstrip(".;") or type(error).__name__
    return f"tracking store {redacted(uri)}: {truncate(text, _LONGEST)}; {repair.format(uri=uri)}"


def redacted(uri: str) -> str:
    """Return a URI without its password."""
    scheme, separator, rest = uri.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{host}" if at else uri
