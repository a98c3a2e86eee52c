"""A worker: one process that trains a queue of trials, one after another.

Trials come in on standard input, one line of JSON each; a line with the final status goes out when one has
ended, on a descriptor that the supervisor names. Everything else is in the trials' journals, and whatever is
printed in the log. Data, network and imports are reused between trials. A worker whose GPU is unresponsive
exits, and the pool starts a new one.
The worker stops within a step on SIGTERM, or when its input closes while a trial runs, which means that the
coordinator is gone.
"""

import os
import signal
import sys
import threading
from queue import SimpleQueue
from types import FrameType
from typing import TextIO

from mimetic.study.executors.reports import private_streams
from mimetic.study.layout import Trial
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.train.devices import device_lost


class StopFlag:
    """A `stop` function that a signal sets."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self) -> str | None:
        """Return the reason to stop, or None."""
        return self.reason

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        ours = number in {signal.SIGINT, signal.SIGTERM}  # the study sends SIGTERM, also after Ctrl-C
        self.reason = "interrupted" if ours else f"stopped by {signal.Signals(number).name}"


def work(trials: TextIO, reports: TextIO) -> None:
    """Train the trials, one on each line, until they end or a line is `end`; report how each ended."""
    stop = StopFlag()
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    queue: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_read, args=(trials, queue, stop), daemon=True).start()
    cache = TrialCache()
    while stop.reason is None:
        line = queue.get()
        if line is None:
            break
        final = run_trial(Trial.from_json(line), cache, stop)
        gpu_error = device_lost() if final == "FAILED" else None
        if gpu_error is not None:  # every further trial would fail in this process
            sys.exit(f"GPU unresponsive: {gpu_error}")
        reports.write(f"{final}\n")
        reports.flush()


def _read(trials: TextIO, queue: "SimpleQueue[str | None]", stop: StopFlag) -> None:
    """Queue the lines of the input. If it closes without `end`, stop the running trial."""
    for line in trials:
        if line.strip() == "end":
            queue.put(None)
            return
        queue.put(line)
    stop.reason = "the coordinator is gone"
    queue.put(None)


if __name__ == "__main__":
    work(*private_streams())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is written; tearing down PyTorch's modules would take another second
