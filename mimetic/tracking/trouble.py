"""What can go wrong with a store, said in one sentence with its repair."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mimetic.errors import RunError

_LONGEST = 300

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


@contextmanager
def store_trouble(uri: str) -> Iterator[None]:
    """Turn failures of the store inside the block into a RunError with the repair.

    MLflow lets through its own exceptions and those of SQLAlchemy, alembic, sqlite and requests, depending
    on where it fails; other exceptions are mistakes of ours and pass.
    """
    try:
        yield
    except _failures() as error:
        raise RunError(describe(error, uri=uri)) from error


def describe(error: BaseException, *, uri: str) -> str:
    """Return one sentence: the store, what happened, and the repair."""
    text = " ".join(str(error).split()).replace(uri, redacted(uri))
    known = (repair for sign, repair in _REPAIRS if sign in text.lower())
    repair = next(known, _OTHERWISE).format(uri=uri)
    said = _essence(text) if text else type(error).__name__
    return f"tracking store {redacted(uri)}: {said}; {repair}"


def redacted(uri: str) -> str:
    """Return a URI without the password some of them carry."""
    scheme, separator, rest = uri.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{host}" if at else uri


def _essence(text: str) -> str:
    """Return the telling part of SQLAlchemy's and requests' long messages."""
    for noise in (" [SQL:", " (Background on this error", " NOTE: ", " Take a backup"):
        text = text.partition(noise)[0]
    text = text.strip().rstrip(".;")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _failures() -> tuple[type[BaseException], ...]:
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError, ModuleNotFoundError)
