"""Locks: one process runs a study, one process trains a trial.

The operating system releases them with their process, also after SIGKILL. A worker may outlive its
coordinator by a step, and two studies may need the same stage: the second process waits for the trial and
then finds it finished.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mimetic.errors import RunError, UserError
from mimetic.files import remove_temporary_files
from mimetic.study.layout import Trial

LOCK = ".lock"
TIMEOUT_S = 120.0
"""Time to wait for workers whose coordinator is gone."""

_POLL_S = 0.2


@contextmanager
def locked_study(folder: Path) -> Iterator[None]:
    """Lock a study: nobody else runs or uploads it meanwhile.

    Temporary files that a killed process left are removed; those of a trial are removed by its worker.

    Raises:
        UserError: If another process has locked it.
    """
    lock = FileLock(folder / LOCK)
    if not _try_acquire(lock):
        raise UserError(
            f"{folder} is being run by another process; wait for it or stop it", code="MIM-Y110"
        ) from None
    try:
        remove_temporary_files(folder, leave_out="seed-*")
        yield
    finally:
        lock.release()


@contextmanager
def locked_trial(trial: Trial, stop: Callable[[], str | None]) -> Iterator[bool]:
    """Lock a trial, after waiting for the process that trains it; yield False if stopped while waiting."""
    lock = FileLock(trial.folder / LOCK)
    while not (locked := _try_acquire(lock)) and stop() is None:
        time.sleep(_POLL_S)
    try:
        yield locked
    finally:
        lock.release()


def lock_run(trial: Trial, experiment: str) -> FileLock | None:
    """Lock a trial's run in an experiment: two uploaders of one journal would log every point twice.

    Several studies may share a trial of a stage.

    Returns:
        The lock, to be released; None if another process has it.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    # Acquired by the thread that opens the tracker, released by another.
    lock = FileLock(trial.folder / f".run-{experiment}{LOCK}", thread_local=False)
    return lock if _try_acquire(lock) else None


def wait_for_workers(trials: Sequence[Trial], show: Callable[[str], None]) -> None:
    """Wait until no worker of an earlier coordinator trains one of these trials.

    Raises:
        RunError: If one still does after `TIMEOUT_S` seconds.
    """
    deadline = time.monotonic() + TIMEOUT_S
    for trial in (trial for trial in trials if trial.folder.is_dir()):
        lock = FileLock(trial.folder / LOCK)
        if not _try_acquire(lock):
            show(f"waiting for a worker of an earlier run: {trial.name}")
            if not _try_acquire(lock, timeout_s=max(0.0, deadline - time.monotonic())):
                raise RunError(
                    f"{trial.name} is still being trained by another process; stop that one", code="MIM-Y111"
                )
        lock.release()


def _try_acquire(lock: FileLock, *, timeout_s: float = 0.0) -> bool:
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        return False
    return True
