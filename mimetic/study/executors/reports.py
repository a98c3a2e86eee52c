"""The streams of a worker: trials come in and reports go out where nothing that a model prints can reach."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

REPORTS = "MIMETIC_REPORTS"
"""Environment variable with the descriptor of a worker's reports."""


def private_streams() -> tuple[TextIO, TextIO]:
    """Return the input of trials and the output of reports, out of reach of models and child processes.

    A worker that is started by hand, without the variable, reports on its standard output.
    """
    trials = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a model that reads standard input gets no trial
    os.close(nothing)
    named = os.environ.pop(REPORTS, None)
    descriptor = os.dup(1) if named is None else int(named)
    os.set_inheritable(descriptor, False)  # a process that outlives the worker must not hide its end
    if named is None:
        os.dup2(2, 1)
    return trials, os.fdopen(descriptor, "w", encoding="utf-8")


@contextmanager
def stdout_to(log: Path) -> Iterator[None]:
    """Append what is printed inside the block to a file, by Python or by a library in C."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    before = os.dup(1)
    try:
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)
