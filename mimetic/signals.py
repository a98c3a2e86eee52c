"""Handlers of signals, set for a block."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def signal_handlers(*signals: signal.Signals, handler: Handler | None = None) -> Iterator[None]:
    """Handle signals by a function, if there is one, inside the block; restore their handlers after it.

    Only the main thread can set handlers: in another one nothing changes.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in signals if on_main_thread}
    try:
        if handler is not None:
            for number in before:
                signal.signal(number, handler)
        yield
    finally:
        # None stands for a handler that was not set from Python, which cannot set it again.
        for number, former in before.items():
            if former is not None:
                signal.signal(number, former)
