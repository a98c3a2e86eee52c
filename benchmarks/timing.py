"""How things are measured: seconds, memory, two things in turn, processes of their own, cores."""

import ctypes
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")

GIB = 2**30


def timed(work: Callable[[], T], *, clock: Callable[[], float] = time.perf_counter) -> tuple[float, T]:
    """Return the seconds of some work, and what it returns."""
    started = clock()
    result = work()
    return clock() - started, result


def process_timed(work: Callable[[], T]) -> tuple[float, tuple[float, T]]:
    """Return the processor seconds of some work in this process, and what `timed` returns."""
    return timed(lambda: timed(work), clock=time.process_time)


def fastest(work: Callable[[], object], *, times: int, device: torch.device | None = None) -> float:
    """Return the seconds of the fastest of some runs, kernels of the device included."""

    def whole() -> None:
        work()
        synchronize(device)

    synchronize(device)
    return min(timed(whole)[0] for _ in range(times))


def keep_freed_memory() -> None:
    """Set glibc's malloc as the environment of mimetic's workers does, for a process that runs already."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD


def synchronize(device: torch.device | None) -> None:
    """Wait until a device has finished its work."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device | None = None) -> float:
    """Return the peak memory in GiB: allocated on a GPU, resident of this process elsewhere."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss includes the parent's memory where a process was forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def alternate(first: Callable[[], T], second: Callable[[], T], rounds: int) -> list[tuple[T, T]]:
    """Return pairs of two measurements in turn; neither always comes second."""
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:
            a, b = first(), second()
        else:
            b, a = second(), first()
        pairs.append((a, b))
    return pairs


def compare(pairs: Iterable[tuple[float, float]]) -> tuple[float, float, float, tuple[float, float]]:
    """Return both medians, the median of the ratios first / second, and the quartiles of the ratios.

    The ratio of neighbours in time does not depend on what else the machine computes.
    """
    firsts, seconds = zip(*pairs, strict=True)
    low, ratio, high = quartiles(a / b for a, b in zip(firsts, seconds, strict=True))
    return statistics.median(firsts), statistics.median(seconds), ratio, (low, high)


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    found = list(values)
    low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    return low, middle, high


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns in a process of its own, whose peak memory is its alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def available_cores() -> list[int]:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Restrict processes started inside the block to some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
