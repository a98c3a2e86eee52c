"""Locks: one process runs a study, one process trains a trial.

They are held by the system and not by a file's existence, so they end with their process, `kill -9`
included. A worker may outlive its coordinator by a step, and two studies may need the same stage: whoever
comes second waits for the trial, and then finds it finished.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mimetic.errors import RunError, UserError
from mimetic.study.layout import Trial

LOCK = ".lock"
PATIENCE = 120.0
"""Seconds to wait for workers whose coordinator is gone."""

_PAUSE = 0.2


@contextmanager
def holding_study(folder: Path) -> Iterator[None]:
    """Hold a study; nobody else runs or mirrors it meanwhile.

    Raises:
        UserError: If another process does.
    """
    lock = _lock(folder)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder} is being run by another process; wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def holding_trial(trial: Trial, stop: Callable[[], str | None]) -> Iterator[bool]:
    """Hold a trial, waiting for whoever trains it; yields False if it was stopped while it waited."""
    lock = _lock(trial.folder)
    while not (held := _tried(lock)) and stop() is None:
        time.sleep(_PAUSE)
    try:
        yield held
    finally:
        lock.release()


def hold_run(trial: Trial, experiment: str) -> FileLock | None:
    """Hold a trial's run in an experiment: two who mirror one journal would log every point twice.

    Args:
        trial: A trial of a stage, which several studies may share.
        experiment: Id of the experiment.

    Returns:
        The lock, to be released; None if somebody else holds it.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    # Taken by the thread that opens the tracker, released by another.
    lock = FileLock(trial.folder / f".run-{experiment}{LOCK}", thread_local=False)
    return lock if _tried(lock) else None


def wait_for_workers(trials: Sequence[Trial], say: Callable[[str], None]) -> None:
    """Wait until no worker of an earlier coordinator trains one of these trials.

    Raises:
        RunError: If one still does after `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    for trial in trials:
        lock = _lock(trial.folder)
        told = False
        while trial.folder.is_dir() and not _tried(lock):
            if time.monotonic() > deadline:
                raise RunError(f"{trial.name} is still being trained by another process; end that one")
            if not told:
                say(f"waiting for a worker of the run before: {trial.name}")
                told = True
            time.sleep(_PAUSE)
        lock.release()


def _tried(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / LOCK)
