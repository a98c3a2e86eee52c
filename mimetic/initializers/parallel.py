"""Independent pieces of a draw, computed side by side, each in one thread: bits do not depend on how many."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from mimetic.covariance.linalg import one_thread

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield what some work gives for each item, in order, on as many threads as torch was given.

    The bits of LAPACK and of sums depend on the number of threads inside one computation, not on how many
    run at once. Work on several threads must not change torch's settings itself.
    """
    workers = min(torch.get_num_threads(), len(items))
    with one_thread():
        if workers < 2:  # noqa: PLR2004
            yield from map(work, items)
            return
        # The number of threads is a setting of each thread that calls torch.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, items)
