"""A worker trains what it is told, one line after another, and ends where it would only fail."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mimetic.journal import read_journal, status
from mimetic.recipe.load import load
from mimetic.recipe.saved import write_recipe
from mimetic.study.executors import worker
from mimetic.study.executors.pool import ProcessPoolExecutor
from mimetic.study.executors.ray import train_one
from mimetic.study.layout import Trial


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Return what a worker trains that is given three trials, the second of which fails."""
    found: list[Trial] = []

    def train(trial: Trial, *_: object) -> str:
        found.append(trial)
        return "FAILED" if trial.seed == 1 else "FINISHED"

    monkeypatch.setattr(worker, "run_trial", train)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)  # this process keeps its own
    return found


def work(folder: Path) -> str:
    """Let a worker train three trials, and return its reports."""
    lines = [*(Trial(str(folder), "arm", seed).to_json() for seed in range(3)), "end"]
    reports = io.StringIO()
    try:
        worker.work(io.StringIO("\n".join(lines)), reports)
    finally:
        folder.joinpath("reports").write_text(reports.getvalue())
    return reports.getvalue()


def test_each_trial_is_answered(trained: list[Trial], tmp_path: Path) -> None:
    """One that fails keeps no other from being trained."""
    reports = work(tmp_path)

    assert [trial.seed for trial in trained] == [0, 1, 2]
    assert reports == "FINISHED\nFAILED\nFINISHED\n"


def test_a_worker_ends_with_its_gpu(
    trained: list[Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What waits is left to a fresh worker; the reason is this one's last word."""
    monkeypatch.setattr(worker, "device_lost", lambda: "CUDA error: as asked")
    with pytest.raises(SystemExit, match="GPU unresponsive: CUDA error: as asked"):
        work(tmp_path)

    assert [trial.seed for trial in trained] == [0, 1]
    assert (tmp_path / "reports").read_text() == "FINISHED\n"


MODEL = """\
import os, subprocess, sys
from torch import nn

def say(where):
    print(f"{where}: FINISHED")
    print(f"{where}: stderr", file=sys.stderr)
    os.write(1, f"{where}: descriptor 1\\n".encode())
    subprocess.run([sys.executable, "-S", "-c", f"print('{where}: child')"], check=True)

class Loud(nn.Flatten):
    said = False

    def forward(self, images):
        if not Loud.said and sys.stdin.read() == "":
            say("forward")
        Loud.said = True
        return super().forward(images)

say("import")

def build(num_classes):
    say("build")
    return nn.Sequential(Loud(), nn.Linear(64, num_classes))
"""

RECIPE: dict[str, Any] = {
    "recipe": 1,
    "name": "loud",
    "model": {"type": "python", "call": "loud:build"},
    "data": {"type": "digits", "train_size": 64, "test_size": 32},
    "train": {"epochs": 1, "batch_size": 32},
    "seeds": 2,
    "arms": {"default": {}},
}


def in_the_pool(folder: Path) -> str:
    """Train in a worker process, and return its log."""
    trials = [Trial(str(folder), "default", seed, allow_code=True) for seed in range(2)]
    ProcessPoolExecutor(workers=1, gpus=0, logs=folder / "logs").run([trials], lambda: None)
    return (folder / "logs" / "worker-0.log").read_text()


def in_a_task_of_ray(folder: Path) -> str:
    """Train as a task of Ray does, and return the log of both trials."""
    for seed in range(2):
        trial = Trial(str(folder), "default", seed, allow_code=True)
        assert train_one(trial.to_json(), {}, str(folder / "logs" / "one.log")) == "FINISHED"
    return (folder / "logs" / "one.log").read_text()


def under_torchrun(folder: Path) -> str:
    """Train as rank 0 does, and return its log."""
    code = (
        "import sys; from mimetic.study.executors.torchrun import _train; "
        "from mimetic.study.layout import Trial; from mimetic.study.trials.cache import TrialCache; "
        "from mimetic.train.distributed import SINGLE_PROCESS; "
        "[_train(Trial.from_json(line), TrialCache(), lambda: None, SINGLE_PROCESS) for line in sys.argv[1:]]"
    )
    trials = [Trial(str(folder), "default", seed, allow_code=True).to_json() for seed in range(2)]
    done = subprocess.run(
        [sys.executable, "-c", code, *trials], capture_output=True, stdin=subprocess.DEVNULL, check=True
    )
    assert done.stdout == b""  # the tables of rank 0 go there
    return (folder / "logs" / "rank-0.log").read_text() + done.stderr.decode()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.parametrize("train", [in_the_pool, in_a_task_of_ray, under_torchrun])
def test_what_a_model_prints_goes_to_the_log(
    train: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By print, to a descriptor or by a child process; it breaks no protocol, and reads nothing of it."""
    (tmp_path / "loud.py").write_text(MODEL)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    write_recipe(tmp_path, load(RECIPE))
    log = train(tmp_path)

    for seed in range(2):
        events = read_journal(Trial(str(tmp_path), "default", seed).journal)
        assert status(events) == "FINISHED", events[-1]
    for where in ("import", "build", "forward"):
        for what in ("FINISHED", "stderr", "descriptor 1", "child"):
            assert f"{where}: {what}\n" in log
