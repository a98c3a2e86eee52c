"""A few steps recorded: a trace other programs read, and a summary of one screen."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from mimetic.train.profiling import SUMMARY, TRACE, profiling


def test_eight_steps_are_recorded(tmp_path: Path) -> None:
    """The first ones, where things are still set up, are not among them."""
    weight = torch.ones(8, 8)
    with profiling(tmp_path, torch.device("cpu"), steps=20, enabled=True) as profiler:
        assert profiler is not None
        for _ in range(20):
            weight = weight @ weight / 8
            profiler.step()

    with gzip.open(tmp_path / TRACE, "rt") as file:
        events = json.load(file)["traceEvents"]
    assert len([event for event in events if event.get("name") == "aten::matmul"]) == 8
    summary = (tmp_path / SUMMARY).read_text()
    assert summary.startswith("8 steps\n")
    assert "aten::mm" in summary


def test_nothing_is_recorded_unless_asked_for(tmp_path: Path) -> None:
    """No file, and nothing to tell of a step."""
    with profiling(tmp_path, torch.device("cpu"), steps=20, enabled=False) as profiler:
        assert profiler is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("steps", "recorded"), [(0, None), (1, None), (2, "1 step"), (12, "11 steps")])
def test_a_short_training_is_recorded_too(steps: int, recorded: str | None, tmp_path: Path) -> None:
    """All but its first step, in which things are still set up."""
    weight = torch.ones(8, 8)
    with profiling(tmp_path, torch.device("cpu"), steps=steps, enabled=True) as profiler:
        for _ in range(steps):
            weight = weight @ weight / 8
            if profiler is not None:
                profiler.step()

    found = (tmp_path / SUMMARY).read_text().splitlines()[0] if (tmp_path / SUMMARY).exists() else None
    assert found == recorded
