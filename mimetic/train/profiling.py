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
"""Steps that pass, that warm the profiler up, and that are recorded; of fewer steps, all but the first."""

_ROWS = 20


class Profiler(Protocol):
    """Takes in the end of each step."""

    def step(self) -> None:
        """Take in the end of a step."""


@contextmanager
def profiling(folder: Path, device: str, *, steps: int, on: bool) -> Iterator[Profiler | None]:
    """Record steps 6 to 13 of the training inside the block, if asked to; of a shorter one what there is.

    Args:
        folder: Where the trace (for chrome://tracing or Perfetto) and the summary go.
        device: Where it trains; the kernels of a GPU are recorded as well.
        steps: How many there are.
        on: Whether to record; None is yielded otherwise.
    """
    if not on or steps < 2:  # noqa: PLR2004 - the first one only warms up
        yield None
        return
    enough = steps >= _WAIT + _WARMUP + _ACTIVE
    wait, warmup, active = (_WAIT, _WARMUP, _ACTIVE) if enough else (0, 1, steps - 1)
    counted = f"{active} step" if active == 1 else f"{active} steps"
    kernels = pick_device(device).type == "cuda"

    def write(recorded: profile) -> None:
        recorded.export_chrome_trace(str(folder / TRACE))
        order = "self_cuda_time_total" if kernels else "self_cpu_time_total"
        table = recorded.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=40)
        write_text(folder / SUMMARY, f"{counted}\n{table}\n")

    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if kernels else [])],
        schedule=schedule(wait=wait, warmup=warmup, active=active, repeat=1),
        on_trace_ready=write,
    ) as recorded:
        yield recorded
