"""Computation whose bits do not depend on the number of threads.

LAPACK's `eigh` and `qr` give other last bits with one thread than with eight (measured with MKL 2024.2), and
a value close to a rounding boundary of float32 then moves. Initial values must not depend on that, so
whatever enters a draw runs in `one_thread`, sums over many entries included. Independent pieces run
`side_by_side`, each in one thread: bits depend on the threads inside one computation, not on how many run at
once.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_LOCK = threading.Lock()
"""Locked while the number of threads is changed: MKL has one number for the whole process."""


class _Thread(threading.local):
    """State of each thread.

    Attributes:
        is_single: Whether torch already computes in one thread here; `one_thread` then has nothing to do.
    """

    is_single = False


_thread = _Thread()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU kernels in one thread inside the block, and restore the number afterwards.

    Blocks may be nested, also inside the work of `side_by_side`.
    """
    if _thread.is_single:
        yield
        return
    with _LOCK:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        _thread.is_single = True
        try:
            yield
        finally:
            _thread.is_single = False
            torch.set_num_threads(before)


def side_by_side(
    work: Callable[[T], R], items: Sequence[T], *, on_result: Callable[[], None] = lambda: None
) -> list[R]:
    """Return the result of some work for each item, in order, on as many threads as torch has.

    The work must not change torch's global settings. `on_result` is called in this thread after each result;
    an exception that it or the work raises cancels the work that has not started.
    """
    workers = min(torch.get_num_threads(), len(items))
    results: list[R] = []
    with one_thread():
        if workers <= 1:
            for item in items:
                results.append(work(item))
                on_result()
            return results
        with ThreadPoolExecutor(workers, initializer=_initialize_worker) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for future in futures:
                    results.append(future.result())
                    on_result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return results


def _initialize_worker() -> None:
    # torch keeps the number of threads per calling thread, and a worker's caller already holds the lock.
    torch.set_num_threads(1)
    _thread.is_single = True
