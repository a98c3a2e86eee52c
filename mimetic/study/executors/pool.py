"""Worker processes of this machine, each with a queue of trials.

On a CPU there is one worker per core with one thread each. Workers that train on GPUs share the cores.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

import torch

from mimetic.study.config import Pool
from mimetic.study.executors.executor import ExecutorRequest, Tick
from mimetic.study.executors.supervisor import (
    GRACE_S,
    ONE_THREAD,
    describe_exit,
    final_tick,
    is_open,
    log_tail,
    record_failure,
    record_final_status,
    send_line,
    start_worker,
    wait_or_kill,
)
from mimetic.study.layout import Trial, is_finished


def pool(_spec: Pool, request: ExecutorRequest) -> "ProcessPoolExecutor":
    """Return the pool of a study: a worker per core, or per slot of a GPU, unless their number is given."""
    # A GPU named by its number is shared by all workers. Otherwise GPUs are assigned to workers in turn.
    numbered = request.devices - {"auto", "cuda", "cpu"}
    assigned = not numbered and not request.devices <= {"cpu"} and torch.cuda.is_available()
    gpus = torch.cuda.device_count() if assigned else 0
    workers, accelerators = request.workers, max(gpus, len(numbered))
    if workers is None:
        workers = accelerators * request.slots if accelerators else cores()
    return ProcessPoolExecutor(workers=workers, gpus=gpus, logs=request.logs)


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True)
class _Worker:
    process: "subprocess.Popen[str]"
    reports: IO[str]
    log: Path
    listener: threading.Thread
    trial: Trial | None = None

    def close(self) -> None:
        """Close the pipes of a worker that has ended."""
        self.listener.join()
        for pipe in (self.process.stdin, self.reports):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def record_death(self, trial: Trial, final: str) -> None:
        """Write the end that a dead worker could not write into its trial's journal."""
        tail = self.last_line()
        reason = f"its worker process ended with {describe_exit(self.process.returncode)}"
        record_final_status(trial, final, f"{reason}: {tail}" if tail else reason)

    def last_line(self) -> str:
        """Return the last line of its output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return log_tail(lines[-1]) if lines else ""


class ProcessPoolExecutor:
    """Trains trials in worker processes.

    GPUs are assigned to the workers in turn; `logs` is the folder for their output.
    """

    def __init__(self, *, workers: int, gpus: int, logs: Path) -> None:
        self.workers, self.gpus, self.logs = workers, gpus, logs
        self.reports: SimpleQueue[tuple[int, subprocess.Popen[str], str | None]] = SimpleQueue()
        self.pool: dict[int, _Worker] = {}

    def run(self, waves: Iterable[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial; `tick` is called a few times a second.

        Workers are reused from wave to wave, with what they have imported and loaded. One that dies fails its
        own trial, with the reason, and a new one continues with the rest.
        """
        try:
            for wave in waves:
                queue = list(reversed(wave))
                for slot in range(min(self.workers, len(queue))):
                    self._assign(slot, queue)
                while any(worker.trial is not None for worker in self.pool.values()):
                    self._collect(queue)
                    tick()
        finally:
            self._stop()
            final_tick(tick)

    def _assign(self, slot: int, queue: list[Trial]) -> None:
        """Give the next trial, if there is one, to the worker of a slot, or to a new one if it died."""
        if not queue:
            self.pool[slot].trial = None
            return
        if slot in self.pool and self.pool[slot].process.poll() is not None:
            self.pool.pop(slot).close()
        if slot not in self.pool:
            self._start(slot)
        worker = self.pool[slot]
        worker.trial = queue.pop()
        send_line(worker.process, worker.trial.to_json())

    def _start(self, slot: int) -> None:
        """Start the worker of a slot, on the slot's GPU where GPUs are assigned."""
        log = self.logs / f"worker-{slot}.log"
        environment = ONE_THREAD
        if self.gpus:
            threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // self.workers)))
            environment = {"CUDA_VISIBLE_DEVICES": _gpu_id(slot % self.gpus), "OMP_NUM_THREADS": threads}
        process, reports = start_worker(environment, log, own_session=True)
        listener = threading.Thread(target=self._listen, args=(slot, process, reports), daemon=True)
        listener.start()
        self.pool[slot] = _Worker(process, reports, log, listener)

    def _listen(self, slot: int, process: "subprocess.Popen[str]", lines: IO[str]) -> None:
        """Queue what a worker reports; None when its reports end."""
        for line in lines:
            self.reports.put((slot, process, line.strip()))
        self.reports.put((slot, process, None))

    def _collect(self, queue: list[Trial]) -> None:
        """Give the next trial to each worker whose trial ended, and replace workers that died."""
        try:
            slot, process, reported = self.reports.get(timeout=0.2)
        except Empty:
            return
        worker = self.pool[slot]
        if worker.process is not process or worker.trial is None:  # it died idle, or was replaced
            return
        if reported is not None:
            record_failure(worker.trial, reported, worker.last_line())
        else:
            process.wait()
            if not is_finished(worker.trial):
                worker.record_death(worker.trial, "FAILED")
        self._assign(slot, queue)

    def _stop(self) -> None:
        """Stop every worker that still runs, then record the end of interrupted trials."""
        running = [worker for worker in self.pool.values() if worker.process.poll() is None]
        for worker in running:
            if worker.trial is not None:
                worker.process.send_signal(signal.SIGTERM)
            else:
                send_line(worker.process, "end")
        deadline = time.monotonic() + GRACE_S
        for worker in running:
            wait_or_kill(worker.process, timeout_s=deadline - time.monotonic())
        for worker in self.pool.values():
            worker.close()
            if worker.trial is not None and is_open(worker.trial):
                worker.record_death(worker.trial, "KILLED")


def _gpu_id(index: int) -> str:
    """Return the id of one of the GPUs this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index] if visible else str(index)
