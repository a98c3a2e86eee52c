"""Where the time of a step goes: a trace of a few steps and a summary of one screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from torch.profiler import ProfilerActivity, profile, schedule

from mimetic.files import write_text
from mimetic.train.devices import pick_device

TRACE = "trace.json.gz"
SUMMARY = "profile.txt"

_WAIT, _WARMUP, _ACTIVE = 3, 2, 8
_ROWS = 20


class Profiler(Protocol):
    """Takes in the end of each step."""

    def step(self) -> None:
        """Take in the end of a step."""


@contextmanager
def profiling(folder: Path, device: str, *, on: bool) -> Iterator[Profiler | None]:
    """Record steps 6 to 13 of the training inside the block, if asked to.

    Args:
        folder: Where the trace (for chrome://tracing or Perfetto) and the summary go.
        device: Where it trains; the kernels of a GPU are recorded as well.
        on: Whether to record; None is yielded otherwise.
    """
    if not on:
        yield None
        return
    kernels = pick_device(device).type == "cuda"

    def write(recorded: profile) -> None:
        recorded.export_chrome_trace(str(folder / TRACE))
        order = "self_cuda_time_total" if kernels else "self_cpu_time_total"
        table = recorded.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=40)
        write_text(folder / SUMMARY, f"{_ACTIVE} steps\n{table}\n")

    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if kernels else [])],
        schedule=schedule(wait=_WAIT, warmup=_WARMUP, active=_ACTIVE, repeat=1),
        on_trace_ready=write,
    ) as recorded:
        yield recorded
