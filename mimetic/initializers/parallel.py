"""Independent pieces of one draw, computed side by side, each in one thread: bits do not depend on it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from mimetic.covariance.linalg import one_thread

T = TypeVar("T")


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run jobs in as many threads as torch was given, and return their results in order.

    LAPACK's bits depend on the number of threads inside one decomposition, not on how many run at once.
    """
    workers = min(torch.get_num_threads(), len(jobs))
    with one_thread():
        if workers < 2:  # noqa: PLR2004
            return [job() for job in jobs]
        # The number of threads is a setting of each thread that calls torch.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda job: job(), jobs))
