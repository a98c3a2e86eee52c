"""A worker trains what it is told, one line after another, and ends where it would only fail."""

import io
import sys
from pathlib import Path

import pytest

from mimetic.study.executors import worker
from mimetic.study.layout import Trial


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Return what a worker trains that is given three trials, the second of which fails."""
    trials = [Trial(str(tmp_path), "arm", seed) for seed in range(3)]
    found: list[Trial] = []

    def train(trial: Trial, *_: object) -> str:
        found.append(trial)
        return "FAILED" if trial.seed == 1 else "FINISHED"

    monkeypatch.setattr(worker, "run_trial", train)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)  # this process keeps its own
    lines = [*(trial.to_json() for trial in trials), "end"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    return found


def test_each_trial_is_answered(trained: list[Trial], capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails keeps no other from being trained."""
    worker.work()

    assert [trial.seed for trial in trained] == [0, 1, 2]
    assert capsys.readouterr().out == "FINISHED\nFAILED\nFINISHED\n"


def test_a_worker_ends_with_its_gpu(
    trained: list[Trial], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What waits is left to a fresh worker; the reason is this one's last word."""
    monkeypatch.setattr(worker, "device_lost", lambda: "CUDA error: as asked")
    with pytest.raises(SystemExit, match="GPU unresponsive: CUDA error: as asked"):
        worker.work()

    assert [trial.seed for trial in trained] == [0, 1]
    assert capsys.readouterr().out == "FINISHED\n"
