"""A team: the processes torchrun started, which train every trial of a study together.

    torchrun --nproc-per-node 2 -m mimetic run recipe.yaml

The first one plans, writes, tracks and compares; it tells the others each trial as it comes. They read the
study's files, so the folder of the runs must be one that all of them see. A process that fails or dies ends
the run, as torchrun has it, and `--resume` goes on.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain

import torch
from torch import distributed as dist

from mimetic.errors import RunError
from mimetic.study.executors.executor import Tick
from mimetic.study.executors.worker import StopFlag
from mimetic.study.layout import Trial
from mimetic.study.trials.shelf import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.train.distributed import PEER_LOST, DistContext

_TICK = 0.5
_PATIENCE = 10.0
"""Seconds to leave the group in: with the others gone it may take for ever."""


def team_size() -> int:
    """Return how many processes torchrun started; 0 or 1 where this one is alone."""
    return _said_by("WORLD_SIZE")


def is_follower() -> bool:
    """Tell whether another process of the team leads."""
    return team_size() > 1 and _said_by("RANK") > 0


def launcher() -> str:
    """Return what stands before `mimetic` on the command line of a team; nothing where this one is alone."""
    size, here = team_size(), _said_by("LOCAL_WORLD_SIZE")
    if size <= 1:
        return ""
    return f"torchrun --nproc-per-node {size} -m " if here == size else "torchrun … -m "


class Team:
    """Trains each trial on all processes, as the first of them."""

    def run(self, waves: Sequence[Sequence[Trial]], tick: Tick) -> None:
        """Train one trial after another; `tick` is called between steps, twice a second."""
        ranks = _join()
        stop, shelf, due = _Stop(), TrialCache(), [0.0]

        def asked() -> str | None:
            if time.monotonic() >= due[0]:
                tick()
                due[0] = time.monotonic() + _TICK
            return stop()

        with _signals(stop):
            for trial in chain.from_iterable(waves):
                _tell(trial.to_json())
                if run_trial(trial, shelf, asked, ranks) == "KILLED":  # whichever process was asked to stop
                    tick()
                    raise KeyboardInterrupt
            tick()


@contextmanager
def leading() -> Iterator[None]:
    """Let the other processes of a team end when the block ends, and leave them on any way out.

    A process that is alone does neither.
    """
    if team_size() <= 1:
        yield
        return
    try:
        yield
        _join()  # they wait for it even where there was nothing to train
        _tell("end")
    finally:
        _leave()


def follow() -> None:
    """Train what the first process tells, until it says that is all.

    Raises:
        RunError: If a trial failed on this process alone, or another process is gone.
    """
    try:
        ranks = _join()
        stop, shelf = _Stop(), TrialCache()
        with _signals(stop):
            while (line := _tell(None)) != "end":
                run_trial(Trial.from_json(line), shelf, stop, ranks)
    finally:
        _leave()


def _leave() -> None:
    """Leave the group: its threads abort an interpreter they outlive."""
    if dist.is_available() and dist.is_initialized():
        leaving = threading.Thread(target=_destroy, daemon=True)
        leaving.start()
        leaving.join(_PATIENCE)


def _destroy() -> None:
    with suppress(RuntimeError):  # the others are gone: there is nothing to leave
        dist.destroy_process_group()


def _join() -> DistContext:
    """Join the team, once; each process takes the GPU of its number, where there are any."""
    if not dist.is_initialized():
        if torch.cuda.is_available():
            # More processes than GPUs is said of the trial, where its device is known (`Ranks.check`).
            torch.cuda.set_device(_said_by("LOCAL_RANK") % torch.cuda.device_count())
            dist.init_process_group("cpu:gloo,cuda:nccl")
        else:
            dist.init_process_group("gloo")
    return DistContext(dist.get_rank(), dist.get_world_size())


def _tell(line: str | None) -> str:
    """Send a line from the first process to all, and return it.

    Raises:
        RunError: If a process is gone.
    """
    said = [line]
    try:
        dist.broadcast_object_list(said, src=0)
    except RuntimeError as error:
        raise RunError(PEER_LOST, code="MIM-Y121") from error
    return str(said[0])


class _Stop(StopFlag):
    """Stops a trial on a signal, and when torchrun is gone: killed by force it ends no process it started."""

    def __init__(self) -> None:
        super().__init__()
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __call__(self) -> str | None:
        """Return why training should stop, if it should."""
        if self._launcher is not None and os.getppid() != self._launcher:
            self.reason = self.reason or "torchrun is gone"
        return self.reason


class _signals:  # noqa: N801 - reads as what it is: `with _signals(stop):`
    """Let SIGINT and SIGTERM stop the trial at a step on which all agree."""

    def __init__(self, stop: StopFlag) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        names = (signal.SIGINT, signal.SIGTERM)
        self._before = {name: signal.signal(name, self._stop.on_signal) for name in names}

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)


def _said_by(environment: str) -> int:
    """Return a number torchrun tells by the environment; 0 where there is none."""
    return int(os.environ.get(environment, "0"))
