"""Trials as tasks of Ray Core, over all machines of a cluster (`pip install mimetic[ray]`).

Each task starts its own worker process, which isolates CUDA and signals, and gives it one trial. A task
whose machine is lost is retried on another and continues from the trial's checkpoint: the folder of the
runs must be on a disk that all machines share. The coordinator alone writes to the tracking store.

The worker gets its environment from the task, not from a `runtime_env`: for that Ray replaces its idle
processes by new ones, which tripled the time to the first task. So mimetic must be installed on every
machine.
"""

import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from select import select
from types import ModuleType
from typing import TYPE_CHECKING

from mimetic.errors import UserError
from mimetic.journal import read_journal, status
from mimetic.signals import signal_handlers
from mimetic.study.config import Ray
from mimetic.study.executors.executor import ExecutorRequest, Tick
from mimetic.study.executors.supervisor import (
    GRACE_S,
    ONE_THREAD,
    describe_exit,
    final_tick,
    log_tail,
    record_failure,
    record_final_status,
    send_line,
    start_worker,
    wait_or_kill,
)
from mimetic.study.layout import Trial

if TYPE_CHECKING:
    from ray import ObjectRef

RETRIES = 3
"""How often a task is retried whose machine or Ray worker is lost."""

_POLL_S = 0.3


def ray_tasks(_spec: Ray, request: ExecutorRequest) -> "RayExecutor":
    """Return the executor of a Ray cluster."""
    return RayExecutor(address=request.address, slots=request.slots, logs=request.logs)


def check_cluster(_spec: Ray, *, address: str | None, store: str | None) -> None:
    """Connect to the cluster, and refuse a sqlite store with several machines.

    Raises:
        UserError: If there is no cluster, or the store is not safe.
    """
    ray = connect(address)
    machines = sum(bool(node["Alive"]) for node in ray.nodes())
    if machines > 1 and store is not None and store.startswith("sqlite"):
        raise UserError(
            f"the runs are on a disk that {machines} machines share, where a sqlite store is not safe: set "
            "$MLFLOW_TRACKING_URI to an MLflow server (`mlflow server --host 0.0.0.0`), or run with "
            "--offline and `mimetic sync` later",
            code="MIM-Y133",
        )


def connect(address: str | None) -> ModuleType:
    """Connect to a Ray cluster, or start one on this machine, and return the module `ray`.

    The address is $RAY_ADDRESS, or a cluster of this machine alone, unless given.

    Raises:
        UserError: If Ray is not installed or does not start, or no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "`study.executor: ray` needs Ray; install it with `pip install 'mimetic[ray]'`", code="MIM-Y130"
        ) from None
    if not ray.is_initialized():
        where = os.environ.get("RAY_ADDRESS") if address is None else address
        # None would join whatever cluster was last started here; "local" starts a new one.
        options = {"address": "local", "include_dashboard": False} if where is None else {"address": where}
        try:
            with signal_handlers(signal.SIGINT, signal.SIGTERM):  # Ray installs its own, which aborts
                ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # noqa: BLE001 (a Ray that does not start raises just that)
            reason = log_tail(str(error), 200)
            if where is None:
                raise UserError(
                    f"Ray does not start on this machine ({reason}); see its `session_latest/logs`",
                    code="MIM-Y131",
                ) from None
            raise UserError(
                f"no Ray cluster answers at `{where}` ({reason}); start one with `ray start --head`, or "
                "omit --address",
                code="MIM-Y132",
            ) from None
    return ray


class RayExecutor:
    """Trains trials as Ray tasks; `logs` is the folder for the output of their workers."""

    def __init__(self, *, address: str | None, slots: int, logs: Path) -> None:
        self.address, self.slots, self.logs = address, slots, logs

    def run(self, waves: Iterable[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial, wave by wave; a task that fails for good fails its trial alone."""
        ray = connect(self.address)
        gpu_share = 1.0 / self.slots if ray.cluster_resources().get("GPU") else 0.0
        environment = dict(ONE_THREAD)
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]

        def submit(trial: Trial) -> "ObjectRef[str]":
            gpus = gpu_share if trial.device != "cpu" else 0.0
            task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(train_one)
            log = self.logs / f"{trial.arm}-seed-{trial.seed}.log"
            reference: ObjectRef[str] = task.remote(trial.to_json(), environment, str(log))
            return reference

        pending: dict[ObjectRef[str], Trial] = {}
        try:
            for wave in waves:
                pending |= {submit(trial): trial for trial in wave}
                while pending:
                    done, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_S)
                    for reference in done:
                        _collect(ray, reference, pending.pop(reference))
                    tick()
        finally:
            for reference in pending:
                ray.cancel(reference, force=False)
            _await_ends(list(pending.values()))
            final_tick(tick)


def train_one(line: str, environment: Mapping[str, str], log: str) -> str:
    """Train one trial in a worker process of this machine; runs inside a Ray task.

    `environment` has variables of the worker beside those of the machine; its output is appended to `log`.

    Returns:
        Its final status.

    Raises:
        RuntimeError: If the worker died.
    """
    worker, reports = start_worker(environment, Path(log))
    with worker, reports:
        try:
            send_line(worker, line)
            while not select([reports], [], [], _POLL_S)[0]:
                pass  # Ray cancels a task between two lines of Python, never within a read
            final = reports.readline().strip()  # its input stays open: the end of this task stops it
            if final:
                send_line(worker, "end")
            wait_or_kill(worker, timeout_s=GRACE_S)
            if final:
                return final
            output = Path(log).read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(
                f"its worker ended with {describe_exit(worker.returncode)}: {log_tail(output)}"
            )
        finally:
            if worker.poll() is None:
                worker.terminate()
                wait_or_kill(worker, timeout_s=GRACE_S)


def _collect(ray: ModuleType, reference: "ObjectRef[str]", trial: Trial) -> None:
    """Record the failure of a task, unless its trial has journaled its end."""
    try:
        record_failure(trial, ray.get(reference), "its journal could not be written")
    except ray.exceptions.RayTaskError as error:  # raised inside the task: not retried
        record_failure(trial, "FAILED", log_tail(str(error.cause)))
    except ray.exceptions.RayError as error:
        lost = f"its machine or Ray's worker there was lost {RETRIES + 1} times"
        record_failure(trial, "FAILED", f"{lost}: {log_tail(str(error))}")


def _await_ends(trials: Sequence[Trial]) -> None:
    """Give cancelled trials time to journal their end, and record it for those that could not."""
    deadline = time.monotonic() + GRACE_S
    for trial in trials:
        while _is_running(trial) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if _is_running(trial):
            record_final_status(trial, "KILLED", "the study was stopped")


def _is_running(trial: Trial) -> bool:
    return status(read_journal(trial.journal)) == "RUNNING"
