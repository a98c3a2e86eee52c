"""Where the time of a step goes: a trace of a few steps and a summary of one screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from mimetic.files import write_text
from mimetic.printable import pluralize

TRACE = "trace.json.gz"
SUMMARY = "profile.txt"

_WAIT, _WARMUP, _ACTIVE = 3, 2, 8
"""Steps to skip, to warm the profiler up, and to record; of fewer steps, all but the first are recorded."""

_ROWS = 20


class Profiler(Protocol):
    """Notified of the end of each step."""

    def step(self) -> None:
        """End a step."""


@contextmanager
def profiling(
    folder: Path, device: torch.device, *, steps: int, enabled: bool = True
) -> Iterator[Profiler | None]:
    """Record steps 6 to 13 of the training inside the block; of a shorter one, all but its first step.

    The folder gets the trace (for chrome://tracing or Perfetto) and the summary. Kernels of a GPU are
    recorded as well. If not `enabled`, and for fewer than two steps, None is yielded.
    """
    if not enabled or steps < 2:  # noqa: PLR2004 (the first step only warms up)
        yield None
        return
    enough = steps >= _WAIT + _WARMUP + _ACTIVE
    wait, warmup, active = (_WAIT, _WARMUP, _ACTIVE) if enough else (0, 1, steps - 1)
    on_gpu = device.type == "cuda"

    def write(recorded: profile) -> None:
        recorded.export_chrome_trace(str(folder / TRACE))
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        table = recorded.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=40)
        write_text(folder / SUMMARY, f"{pluralize(active, 'step')}\n{table}\n")

    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
        schedule=schedule(wait=wait, warmup=warmup, active=active, repeat=1),
        on_trace_ready=write,
    ) as recorded:
        yield recorded
