"""Handlers of signals are set for a block, and no longer."""

import os
import signal
import threading
from types import FrameType

from mimetic.signals import signal_handlers


def test_handlers_are_restored() -> None:
    """Inside the block a signal calls the handler; without one, what the block sets is undone."""
    seen: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.getsignal(signal.SIGUSR1)
    with signal_handlers(signal.SIGUSR1, handler=handler):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before

    with signal_handlers(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, handler)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_another_thread_sets_none() -> None:
    """Only the main thread can: elsewhere the block runs with the handlers that there are."""
    found: list[object] = []

    def run() -> None:
        with signal_handlers(signal.SIGUSR1, handler=lambda *_: None):
            found.append(signal.getsignal(signal.SIGUSR1))

    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]
