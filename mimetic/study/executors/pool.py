"""The pool: worker processes, each with a queue of trials, and a supervisor that ends runs honestly.

On a CPU there is one worker per core with one thread each: `OMP_NUM_THREADS=1` is set before torch is
imported there, since two threads on a busy machine were measured up to 13 times slower than one. Workers
that train on GPUs share the cores.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from mimetic.errors import RunError
from mimetic.journal import Journal, read_journal, status
from mimetic.study.executors.executor import Tick
from mimetic.study.layout import Trial

WORKER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "MPLBACKEND": "Agg",
    # glibc returns freed memory to the system, and a training step needs it again at once: for a
    # ConvMixer-128/4 at a batch of 128 some 29,000 page faults a step, 3,400 with these, and 8 % less time.
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
"""Environment of every worker process."""

GRACE = 20.0
"""Seconds a worker has to end its trial after SIGTERM before it is killed."""


@dataclass(slots=True)
class _Worker:
    process: "subprocess.Popen[str]"
    log: Path
    listener: threading.Thread
    trial: Trial | None = None

    def close(self) -> None:
        """Close the pipes of a worker that has ended."""
        self.listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Runs trials in worker processes until all have ended or it is told to stop.

    Args:
        workers: How many.
        gpus: GPUs to deal out to them.
        logs: Folder for what they say.
    """

    def __init__(self, *, workers: int, gpus: int, logs: Path) -> None:
        self.workers, self.gpus, self.logs = workers, gpus, logs
        self.reports: SimpleQueue[tuple[int, subprocess.Popen[str], str | None]] = SimpleQueue()
        self.pool: dict[int, _Worker] = {}

    def run(self, waves: Sequence[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial; `tick` is called a few times a second.

        Workers stay from wave to wave, with what they have imported and loaded.
        A worker that dies takes its own trial with it (FAILED, with the reason), and a fresh one goes on
        with the rest. An exception out of `tick`, Ctrl-C among them, stops all workers within a step.
        """
        try:
            for wave in waves:
                waiting = list(reversed(wave))
                for slot in range(min(self.workers, len(waiting))):
                    self._next(slot, waiting)
                while any(worker.trial for worker in self.pool.values()):
                    self._collect(waiting)
                    tick()
        finally:
            self._stop()
            tick_safely(tick)

    def _start(self, slot: int) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"worker-{slot}.log"
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(slot % self.gpus)
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.workers)))
        else:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "mimetic.study.executors.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                bufsize=1,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the coordinator alone, which ends its workers
            )
        assert process.stdout is not None
        listener = threading.Thread(target=self._listen, args=(slot, process, process.stdout), daemon=True)
        listener.start()
        self.pool[slot] = _Worker(process, log, listener)

    def _listen(self, slot: int, process: "subprocess.Popen[str]", lines: IO[str]) -> None:
        for line in lines:
            self.reports.put((slot, process, line.strip()))
        self.reports.put((slot, process, None))

    def _next(self, slot: int, waiting: list[Trial]) -> None:
        """Give the next trial, if there is one, to the worker of a slot, or to a fresh one if it died."""
        if not waiting:
            self.pool[slot].trial = None
            return
        if slot in self.pool and self.pool[slot].process.poll() is not None:
            self.pool.pop(slot).close()
        if slot not in self.pool:
            self._start(slot)
        worker = self.pool[slot]
        worker.trial = waiting.pop()
        tell(worker.process, worker.trial.to_json())

    def _collect(self, waiting: list[Trial]) -> None:
        """Give the next trial to each worker whose trial ended, and replace workers that died."""
        try:
            slot, process, said = self.reports.get(timeout=0.2)
        except Empty:
            return
        worker = self.pool[slot]
        if worker.process is not process or worker.trial is None:  # it died while there was nothing to train
            return
        if said is not None:
            end_failed(worker.trial, said, _last_words(worker))
        else:
            process.wait()
            _record_death(worker, worker.trial)
        self._next(slot, waiting)

    def _stop(self) -> None:
        """End every worker that still lives: politely, then by force; then record what was cut off."""
        alive = [worker for worker in self.pool.values() if worker.process.poll() is None]
        for worker in alive:
            if worker.trial is not None:
                worker.process.send_signal(signal.SIGTERM)
            else:
                tell(worker.process, "end")
        deadline = time.monotonic() + GRACE
        for worker in alive:
            try:
                worker.process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        for worker in self.pool.values():
            worker.close()
            if worker.trial is not None and status(read_journal(worker.trial.journal)) in (
                "PENDING",
                "RUNNING",
            ):
                _record_death(worker, worker.trial, killed=True)


def tell(worker: "subprocess.Popen[str]", line: str) -> None:
    """Write a line to a worker."""
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # it died, which the end of its output tells
        worker.stdin.write(f"{line}\n")
        worker.stdin.flush()


def tick_safely(tick: Tick) -> None:
    """Let the display and the tracker take in the last events; a second interrupt must not lose them."""
    try:
        tick()
    except KeyboardInterrupt:
        tick()


def _record_death(worker: _Worker, trial: Trial, *, killed: bool = False) -> None:
    """Write the end a dead worker could not write into its trial's journal."""
    tail = _last_words(worker)
    reason = f"its worker process ended with {died_of(worker.process.returncode)}"
    reason += f": {tail}" if tail else ""
    record_end(trial, "KILLED" if killed else "FAILED", reason)


def _last_words(worker: _Worker) -> str:
    return "".join(worker.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:])


def died_of(code: int | None) -> str:
    """Return what ended a process, in words."""
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def end_failed(trial: Trial, said: str, reason: str) -> None:
    """Write the end of a trial that failed and could not write it, e.g. because the disk was full then."""
    if said == "FAILED" and status(read_journal(trial.journal)) in ("PENDING", "RUNNING"):
        record_end(trial, "FAILED", reason)


def record_end(trial: Trial, ended: str, reason: str) -> None:
    """Write the end of a trial whose own process could not; on a full disk it stays open, and is resumed."""
    with suppress(RunError), Journal(trial.journal) as journal:
        journal.write("end", status=ended, reason=reason, seconds=None)


def _visible(index: int) -> str:
    """Return the id of one of the GPUs this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index] if visible else str(index)
