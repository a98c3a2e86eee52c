"""Supervision of worker processes: start them, talk to them, stop them, and record how a trial ended."""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from mimetic.errors import RunError
from mimetic.journal import Journal, read_journal, status
from mimetic.study.executors.executor import Tick
from mimetic.study.executors.reports import REPORTS
from mimetic.study.layout import Trial

GRACE_S = 20.0
"""Seconds a worker has to end its trial after SIGTERM before it is killed."""

WORKER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "MPLBACKEND": "Agg",
    # glibc returns freed memory to the system, and a training step needs it again at once: for a
    # ConvMixer-128/4 at a batch of 128 some 29,000 page faults a step, 3,400 with these, and 8 % less time.
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
"""Environment variables of every worker process."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread per worker, set before it imports torch: two on a busy machine were up to 13 times slower."""


def start_worker(
    environment: Mapping[str, str], log: Path, *, own_session: bool = False
) -> "tuple[subprocess.Popen[str], IO[str]]":
    """Start a worker process, which reads trials from its input, and return it with the pipe of its reports.

    Reports have a separate descriptor: whatever a model, a download or a library prints is appended to
    the log. `environment` has variables beside those of this process and of every worker. With `own_session`,
    Ctrl-C reaches this process alone, which then stops the worker.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = os.pipe()
    try:
        with log.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "mimetic.study.executors.worker"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(theirs,),
                text=True,
                bufsize=1,
                env={
                    **os.environ,
                    **WORKER_ENVIRONMENT,
                    "PYTHONPATH": _python_path(),
                    REPORTS: str(theirs),
                    **environment,
                },
                start_new_session=own_session,
            )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return worker, os.fdopen(ours, encoding="utf-8")


def _python_path() -> str:
    """Return the module search path of workers: this process's, and the folder that contains mimetic.

    `-P` keeps the current folder off the path, where a stranger's `regex.py` would be imported; in a checkout
    without an installation, mimetic itself must still be found.
    """
    package = str(Path(__file__).parents[3])
    existing = os.environ.get("PYTHONPATH", "")
    installed = package in {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    return existing if installed else os.pathsep.join(filter(None, (existing, package)))


def send_line(worker: "subprocess.Popen[str]", line: str) -> None:
    """Write a line to a worker's input."""
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # it died: the end of its reports shows that
        worker.stdin.write(f"{line}\n")
        worker.stdin.flush()


def wait_or_kill(worker: "subprocess.Popen[str]", *, timeout_s: float) -> None:
    """Wait for a worker to end, and kill it after a time."""
    try:
        worker.wait(timeout=max(0.0, timeout_s))
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def describe_exit(code: int | None) -> str:
    """Return what ended a process, in words."""
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def log_tail(text: str, length: int = 300) -> str:
    """Return the end of a process's output on one line."""
    return " ".join(text.split())[-length:]


def is_open(trial: Trial) -> bool:
    """Return whether the journal of a trial lacks its end."""
    return status(read_journal(trial.journal)) in ("PENDING", "RUNNING")


def record_final_status(trial: Trial, final: str, reason: str) -> None:
    """Write the end event of a trial whose own process could not.

    On a full disk the trial stays open, and `--resume` continues it.
    """
    with suppress(RunError), Journal(trial.journal) as journal:
        journal.write("end", status=final, reason=reason, seconds=None)


def record_failure(trial: Trial, reported: str, reason: str) -> None:
    """Write the end of a trial that reported FAILED but could not journal it, e.g. on a full disk."""
    if reported == "FAILED" and is_open(trial):
        record_final_status(trial, "FAILED", reason)


def final_tick(tick: Tick) -> None:
    """Update display and tracker a last time; a second interrupt must not lose the last events."""
    try:
        tick()
    except KeyboardInterrupt:
        tick()
