"""Real servers for the slow tests, MLflow's and PostgreSQL's, and studies trained in this process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.tracking.ui import HOST, free_port

LIMIT = 90.0
"""Seconds a server has to answer."""


@dataclass(slots=True)
class Mlflow:
    """MLflow's own server, in a session of its own: it starts processes, which end with it."""

    command: Sequence[str]
    port: int
    log: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        """Return its address."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, env=self.environment, start_new_session=True
            )
        end = time.monotonic() + LIMIT
        while True:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=5):
                return
            if self.process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the server does not answer:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill it and what it started at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def mlflow_server(store: str, folder: Path) -> Mlflow:
    """Return `mlflow server` on a database, with its artifacts and its log in a folder; not started."""
    port = free_port(_any_port())
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    command += ["--host", HOST, "--port", str(port)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | quiet
    return Mlflow(command, port, folder / "mlflow.log", environment)


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server on a socket in a folder of its own and yield MLflow's address of it.

    PostgreSQL refuses root, as whom the account `nobody` runs it.
    """
    missing = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"PostgreSQL's {' and '.join(missing)} not on the path: install `postgresql`")
    pytest.importorskip("psycopg2", reason="MLflow needs psycopg2 for PostgreSQL")
    user: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="mimetic-postgres-"))  # a socket's path has 107 bytes at most
    try:
        if user:
            shutil.chown(folder, "nobody")
        data = str(folder / "data")
        setting = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **user}
        made = subprocess.run(
            ["initdb", "--no-sync", "--auth=trust", "--username=mimetic", "--encoding=UTF8", data],
            check=False,
            **setting,
        )
        if made.returncode:
            pytest.skip(f"initdb does not run here: {made.stdout.decode()[-300:]}")
        options = ["-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen(["postgres", *options], **setting | {"stdout": subprocess.DEVNULL})
        try:
            end = time.monotonic() + LIMIT
            while not any(folder.glob(".s.PGSQL.*[0-9]")) and time.monotonic() < end:
                time.sleep(0.1)
            yield f"postgresql+psycopg2://mimetic@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WatchedExecutor:
    """An executor that trains in this process and calls `watch` before each step."""

    def __init__(self, watch: Callable[[], None] = lambda: None) -> None:
        """Remember what to call."""
        self.watch = watch

    def run(self, waves: Sequence[Sequence[Any]], tick: Callable[[], None]) -> None:
        """Train one trial after another."""

        def step() -> None:
            self.watch()
            tick()

        cache = TrialCache()
        for trial in chain.from_iterable(waves):
            run_trial(trial, cache, step)
        step()


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
