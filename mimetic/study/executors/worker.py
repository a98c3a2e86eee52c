"""A worker: one process that trains a queue of trials, one after another.

Trials come in on standard input, a line of JSON for each; a line goes out when it has ended.
Everything else is said in the trials' journals. Data and imports are kept between trials.
A worker whose GPU answers no more ends, and the pool puts a fresh one in its place.
The worker stops within a step when it gets SIGTERM, or when its input closes while a trial runs, which
means that the coordinator is gone.
"""

import os
import signal
import sys
import threading
from queue import SimpleQueue
from types import FrameType

from mimetic.study.layout import Trial
from mimetic.study.trials.shelf import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.train.devices import device_lost


class StopFlag:
    """Why training should stop, if it should; called once a step."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self) -> str | None:
        """Return why training should stop, if it should."""
        return self.reason

    def on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        """Take in a signal."""
        self.reason = f"stopped by {signal.Signals(number).name}"


def _read(queue: "SimpleQueue[str | None]", stop: StopFlag) -> None:
    """Hand on lines of input; its end stops the trial that runs, unless a plain `end` announced it."""
    for line in sys.stdin:
        if line.strip() == "end":
            queue.put(None)
            return
        queue.put(line)
    stop.reason = "the coordinator is gone"
    queue.put(None)


def work() -> None:
    """Train trials until told to end."""
    stop = StopFlag()
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    queue: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_read, args=(queue, stop), daemon=True).start()
    shelf = TrialCache()
    while stop.reason is None:
        line = queue.get()
        if line is None:
            break
        ended = run_trial(Trial.from_json(line), shelf, stop)
        lost = device_lost() if ended == "FAILED" else None
        if lost is not None:  # the trials that wait would fail here, too
            sys.exit(f"its GPU answers no more: {lost}")
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    work()
    sys.stdout.flush()
    os._exit(0)  # all is written: taking PyTorch's modules apart takes a second, which a study waits for
