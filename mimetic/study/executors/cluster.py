"""A cluster: trials as tasks of Ray Core, over as many machines as it has (`pip install mimetic[ray]`).

Each task starts a worker of its own, which isolates CUDA and signals, and hands it one trial. A task whose
machine is lost is tried again elsewhere and goes on at the trial's checkpoint: the folder of the runs must
lie on a disk all machines share. The coordinator alone speaks to the tracking store, as ever.

The worker gets its environment from the task, not from a `runtime_env`: for that Ray gives up the processes
it has and starts others, which made a first task take three times as long. So mimetic must be installed on
every machine.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from select import select
from typing import Any

from mimetic.errors import UserError
from mimetic.journal import read_journal, status
from mimetic.study.executors.executor import Tick
from mimetic.study.executors.pool import (
    GRACE,
    WORKER_ENVIRONMENT,
    died_of,
    end_failed,
    record_end,
    tell,
    tick_safely,
)
from mimetic.study.layout import Trial

RETRIES = 3
"""How often a task is tried again whose machine or Ray worker is lost."""

_WAIT = 0.3


def connect(address: str | None) -> Any:
    """Connect to a Ray cluster, or start one on this machine, and return Ray.

    Args:
        address: Of the cluster; $RAY_ADDRESS, or a cluster of this machine alone unless given.

    Raises:
        UserError: If Ray is not installed or does not start, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "study.executor: ray needs Ray; install it with `pip install 'mimetic[ray]'`"
        ) from None
    if not ray.is_initialized():
        where = os.environ.get("RAY_ADDRESS") if address is None else address
        # None would join whatever cluster was last started here; "local" starts one of our own.
        options = {"address": "local", "include_dashboard": False} if where is None else {"address": where}
        try:
            with _keeping_signals():
                ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # noqa: BLE001 - a Ray that does not start raises just that
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"Ray does not start on this machine ({said}); its `session_latest/logs` tell more"
                if where is None
                else f"no Ray cluster answers at `{where}` ({said}); start one with `ray start --head`, "
                "or leave --address away"
            ) from None
    return ray


@contextmanager
def _keeping_signals() -> Iterator[None]:
    """Keep what ends this process: Ray puts a handler of its own in place, which aborts on SIGTERM."""
    mine = threading.current_thread() is threading.main_thread()
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)} if mine else {}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def machines(ray: Any) -> int:
    """Return the number of machines of the cluster."""
    return sum(bool(node["Alive"]) for node in ray.nodes())


def check_store(ray: Any, uri: str) -> None:
    """Refuse a sqlite store beside a cluster of several machines.

    Raises:
        UserError: With the repair.
    """
    count = machines(ray)
    if count > 1 and uri.startswith("sqlite"):
        raise UserError(
            f"the runs lie on a disk {count} machines share, where a sqlite store is not safe: set "
            "$MLFLOW_TRACKING_URI to an MLflow server (`mlflow server --host 0.0.0.0`), or run with "
            "--offline and `mimetic sync` later"
        )


class Cluster:
    """Runs trials as Ray tasks.

    Args:
        address: Of the cluster.
        slots: Trials that share a GPU.
    """

    def __init__(self, *, address: str | None, slots: int) -> None:
        self.address, self.slots = address, slots

    def run(self, waves: Sequence[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial, wave by wave; one whose task fails for good is FAILED, and the others go on."""
        ray = connect(self.address)
        share = 1.0 / self.slots if ray.cluster_resources().get("GPU") else 0.0
        surroundings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **WORKER_ENVIRONMENT}
        if "PYTHONPATH" in os.environ:
            surroundings["PYTHONPATH"] = os.environ["PYTHONPATH"]

        def task(trial: Trial) -> Any:
            on_gpu = share if trial.device != "cpu" else 0.0
            remote = ray.remote(num_cpus=1, num_gpus=on_gpu, max_retries=RETRIES)(train_one)
            return remote.remote(trial.to_json(), surroundings)

        left: dict[Any, Trial] = {}
        try:
            for wave in waves:
                left |= {task(trial): trial for trial in wave}
                while left:
                    done, _ = ray.wait(list(left), num_returns=1, timeout=_WAIT)
                    for reference in done:
                        _collect(ray, reference, left.pop(reference))
                    tick()
        finally:
            for reference in left:
                ray.cancel(reference, force=False)
            _await_ends(list(left.values()))
            tick_safely(tick)


def train_one(line: str, surroundings: Mapping[str, str]) -> str:
    """Train one trial in a worker process of this machine; runs inside a Ray task.

    Args:
        line: The trial.
        surroundings: What the worker's environment holds beside that of the machine.

    Raises:
        RuntimeError: If the worker died.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as trouble,
        subprocess.Popen(
            [sys.executable, "-m", "mimetic.study.executors.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=trouble,  # no pipe: nobody would read it while the trial runs
            text=True,
            env={**os.environ, **surroundings},
        ) as worker,
    ):
        try:
            tell(worker, line)
            assert worker.stdout is not None
            while not select([worker.stdout], [], [], _WAIT)[0]:
                pass  # Ray cancels a task between two lines of Python, and never within a read
            said = worker.stdout.readline().strip()  # its input stays open: the end of this task stops it
            if said:
                tell(worker, "end")
                _wait(worker)
                return said
            _wait(worker)
            trouble.seek(0)
            raise RuntimeError(f"its worker ended with {died_of(worker.returncode)}: {_tail(trouble.read())}")
        finally:
            _end(worker)


def _end(worker: "subprocess.Popen[str]") -> None:
    """End a worker that still lives: politely, then by force."""
    if worker.poll() is None:
        worker.terminate()
        _wait(worker)
    worker.kill()


def _wait(worker: "subprocess.Popen[str]") -> None:
    with suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=GRACE)


def _collect(ray: Any, reference: Any, trial: Trial) -> None:
    """Write the end of a trial whose task failed, unless the trial has said itself how it ended."""
    try:
        end_failed(trial, ray.get(reference), "its journal could not be written")
    except ray.exceptions.RayTaskError as error:  # raised in the task: not tried again
        end_failed(trial, "FAILED", _tail(str(error.cause)))
    except ray.exceptions.RayError as error:
        lost = f"its machine or Ray's own worker there was lost {RETRIES + 1} times"
        end_failed(trial, "FAILED", f"{lost}: {_tail(str(error))}")


def _tail(text: str) -> str:
    return " ".join(text.split())[-300:]


def _await_ends(trials: Sequence[Trial]) -> None:
    """Give cancelled trials time to write their own end, and write it for those that could not."""
    deadline = time.monotonic() + GRACE
    for trial in trials:
        while status(read_journal(trial.journal)) == "RUNNING" and time.monotonic() < deadline:
            time.sleep(_WAIT)
        if status(read_journal(trial.journal)) == "RUNNING":
            record_end(trial, "KILLED", "the study was stopped")
