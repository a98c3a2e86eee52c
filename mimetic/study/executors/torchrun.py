"""The processes that torchrun started, which train every trial of a study together.

    torchrun --nproc-per-node 2 -m mimetic run recipe.yaml

Rank 0 plans, writes, tracks and compares, and broadcasts each trial to the other ranks. They read the
study's files, so the folder of the runs must be visible to all of them. A process that fails or dies ends
the run, as is usual with torchrun, and `--resume` continues it.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain
from pathlib import Path

import torch
from torch import distributed as dist

from mimetic.errors import RunError, UserError
from mimetic.signals import signal_handlers
from mimetic.study.executors.executor import Tick
from mimetic.study.executors.ranks import environment_number, world_size
from mimetic.study.executors.reports import stdout_to
from mimetic.study.executors.worker import StopFlag
from mimetic.study.layout import Trial
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.train.distributed import PEER_LOST, DistContext
from mimetic.train.job import Stop

_TICK_S = 0.5
_LEAVE_TIMEOUT_S = 10.0
"""Time to leave the process group: with the other ranks gone it may block for ever."""


class TorchrunExecutor:
    """Trains each trial on all ranks, as rank 0 of them."""

    def run(self, waves: Iterable[Sequence[Trial]], tick: Tick) -> None:
        """Train one trial after another; `tick` is called between steps, twice a second."""
        context = _join()
        stop_flag, cache, next_tick = _StopWithLauncher(), TrialCache(), 0.0

        def stop() -> str | None:
            nonlocal next_tick
            if time.monotonic() >= next_tick:
                tick()
                next_tick = time.monotonic() + _TICK_S
            return stop_flag()

        with _signals_to(stop_flag):
            for trial in chain.from_iterable(waves):
                _broadcast(trial.to_json())
                if _train(trial, cache, stop, context) == "KILLED":  # whichever rank was stopped
                    tick()
                    raise KeyboardInterrupt
            tick()


@contextmanager
def rank0_context() -> Iterator[None]:
    """Run the block on rank 0, then let the other ranks end; leave the process group on any way out.

    Without torchrun the block just runs.
    """
    if world_size() <= 1:
        yield
        return
    try:
        yield
        _join()  # they wait for it even if there was nothing to train
        _broadcast("end")
    finally:
        _leave()


def worker_loop() -> None:
    """Train the trials that rank 0 broadcasts, until it broadcasts the end.

    Raises:
        RunError: If a trial failed on this rank alone, or another process is gone.
    """
    try:
        context = _join()
        stop, cache = _StopWithLauncher(), TrialCache()
        with _signals_to(stop):
            while (line := _broadcast(None)) != "end":
                _train(Trial.from_json(line), cache, stop, context)
    finally:
        _leave()


def _train(trial: Trial, cache: TrialCache, stop: Stop, context: DistContext) -> str:
    """Train a trial on this rank; what it prints goes to a log, as in a worker, not between the tables."""
    with stdout_to(Path(trial.study) / "logs" / f"rank-{context.rank}.log"):
        return run_trial(trial, cache, stop, context)


def _join() -> DistContext:
    """Join the process group, once; each process takes the GPU of its local rank, if there are any."""
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UserError(
                f"$WORLD_SIZE is {world_size()}, but ${missing[0]} is not set; start by torchrun or unset it",
                code="MIM-Y290",
            )
        if torch.cuda.is_available():
            # `DistContext.validate` refuses more processes than GPUs, once a trial's device is known.
            torch.cuda.set_device(environment_number("LOCAL_RANK") % torch.cuda.device_count())
            dist.init_process_group("cpu:gloo,cuda:nccl")
        else:
            dist.init_process_group("gloo")
    return DistContext(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """Leave the process group: its threads would abort an interpreter that ends before them."""
    if dist.is_available() and dist.is_initialized():
        leaving = threading.Thread(target=_destroy, daemon=True)
        leaving.start()
        leaving.join(_LEAVE_TIMEOUT_S)


def _destroy() -> None:
    with suppress(RuntimeError):  # the other ranks are gone: there is nothing to leave
        dist.destroy_process_group()


def _broadcast(line: str | None) -> str:
    """Send a line from rank 0 to all, and return it.

    Raises:
        RunError: If a process is gone.
    """
    message = [line]
    try:
        dist.broadcast_object_list(message, src=0)
    except RuntimeError as error:
        raise RunError(PEER_LOST, code="MIM-Y121") from error
    return str(message[0])


class _StopWithLauncher(StopFlag):
    """Stops a trial on a signal, and when torchrun is gone: killed by SIGKILL it stops no process."""

    def __init__(self) -> None:
        super().__init__()
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __call__(self) -> str | None:
        """Return the reason to stop, or None."""
        if self._launcher is not None and os.getppid() != self._launcher:
            self.reason = self.reason or "torchrun is gone"
        return self.reason


def _signals_to(stop: StopFlag) -> AbstractContextManager[None]:
    """Let SIGINT and SIGTERM stop the trial at a step on which all ranks agree."""
    return signal_handlers(signal.SIGINT, signal.SIGTERM, handler=stop.on_signal)
