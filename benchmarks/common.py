"""What the benchmarks share: timing, memory, parts measured in processes of their own, lines of a table."""

import argparse
import ctypes
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that says of its script what the first line of its docstring does."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def apart_parser(doc: str | None, parts: Iterable[str], *, threads: int) -> argparse.ArgumentParser:
    """Return the parser of a script whose parts are measured in processes of their own."""
    found = parser(doc)
    found.add_argument("--quick", action="store_true", help="a small case for tests")
    found.add_argument("--threads", type=int, default=threads)
    found.add_argument("--part", choices=list(parts), help=argparse.SUPPRESS)
    return found


def convmixer_parser(
    doc: str | None, *, dim: int, depth: int, kernel: int, patch: int, device: str
) -> argparse.ArgumentParser:
    """Return the parser of a script that trains a ConvMixer, with its defaults."""
    found = parser(doc)
    for name, value in {"dim": dim, "depth": depth, "kernel": kernel, "patch": patch}.items():
        found.add_argument(f"--{name}", type=int, default=value, help="of the ConvMixer")
    found.add_argument("--batch", type=int, default=128, help="images per step")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--device", default=device, help="auto, cpu, cuda:0, …")
    return found


def loop_parser(
    doc: str | None, *, dim: int, depth: int, patch: int, steps: int, windows: int, device: str
) -> argparse.ArgumentParser:
    """Return the parser of a script that times training loops in windows of some steps, with its defaults."""
    found = convmixer_parser(doc, dim=dim, depth=depth, kernel=7, patch=patch, device=device)
    found.add_argument("--model", choices=["convmixer", "cifar_resnet", "both"], default="both")
    found.add_argument("--steps", type=int, default=steps, help="steps per window")
    found.add_argument("--windows", type=int, default=windows, help="windows of each")
    return found


def timed(work: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Return the seconds of some work, and what it returns."""
    began = clock()
    result = work()
    return clock() - began, result


def keep_freed_memory() -> None:
    """Set glibc's malloc as the environment of mimetic's workers does, for a process that runs already."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD


def peak() -> float:
    """Return the largest resident memory of this process so far in GiB."""
    unit = 1024 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def apart(script: str, words: Sequence[object]) -> dict[str, Any]:
    """Run a script again with other arguments, and return what it prints last, an object of JSON."""
    command = [sys.executable, script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def row(*cells: object) -> None:
    """Print a line of a table in Markdown."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*names: str, words: int = 1) -> None:
    """Print the head of a table whose first so many columns are words and the others numbers."""
    row(*names)
    print(f"|{'---|' * words}{'---:|' * (len(names) - words)}")
