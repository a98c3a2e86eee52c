"""The pool: which process trains what. Its workers are stood in for by a script that trains nothing."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mimetic.journal import read_journal, status
from mimetic.study.executors import supervisor
from mimetic.study.executors.pool import ProcessPoolExecutor
from mimetic.study.layout import Trial

WORKER = """
import json, os, sys, time
reports = open(int(os.environ["MIMETIC_REPORTS"]), "w")
for line in sys.stdin:
    if line.strip() == "end":
        break
    trial = json.loads(line)
    with open(os.path.join(trial["study"], "trained.jsonl"), "a") as told:
        told.write(json.dumps([trial["arm"], os.getpid()]) + "\\n")
    if trial["arm"] == "fatal":
        os._exit(3)
    time.sleep(0.7 if trial["arm"] == "slow" else 0.0)
    print("FAILED: printed by a model, no report", flush=True)
    print("FINISHED", file=reports, flush=True)
"""
Train = Callable[..., list[tuple[str, int]]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return what trains waves of arms in a pool and tells, in order, which process got which."""
    start = subprocess.Popen
    monkeypatch.setattr(
        supervisor.subprocess,
        "Popen",
        lambda _command, **options: start([sys.executable, "-S", "-c", WORKER], **options),
    )

    def trained(
        *waves: list[str], workers: int, tick: Callable[[ProcessPoolExecutor], None] = lambda _: None
    ) -> Any:
        executor = ProcessPoolExecutor(workers=workers, gpus=0, logs=tmp_path / "logs")
        trials = [[Trial(str(tmp_path), arm, 0) for arm in wave] for wave in waves]
        for trial in (one for wave in trials for one in wave):
            trial.folder.mkdir(parents=True)
        executor.run(trials, lambda: tick(executor))
        assert all(worker.process.returncode is not None for worker in executor.pool.values())
        assert not [thread for thread in threading.enumerate() if "_listen" in thread.name]
        lines = (tmp_path / "trained.jsonl").read_text().splitlines()
        return [tuple(json.loads(line)) for line in lines]

    return trained


def test_a_worker_stays_from_wave_to_wave(train: Train) -> None:
    """What it has imported and loaded is kept, also where a wave before had no work for it."""
    told = train(["a", "b"], ["c"], ["d", "e", "slow", "f"], workers=1)

    assert [arm for arm, _ in told] == ["a", "b", "c", "d", "e", "slow", "f"]
    assert len({process for _, process in told}) == 1


def test_a_wave_waits_for_the_one_before(train: Train) -> None:
    """Though a worker has nothing to do meanwhile; another is started only once there is work for two."""
    told = train(["first"], ["slow", "b"], ["last"], workers=2)

    assert told[0][0] == "first"
    assert told[-1][0] == "last"
    assert len({process for _, process in told}) == 2


def test_a_worker_that_dies_takes_its_own_trial_with_it(train: Train, tmp_path: Path) -> None:
    """A fresh one goes on with the rest, of its wave and of the next."""
    told = train(["a", "fatal", "b"], ["c"], workers=1)
    process = dict(told)

    assert process["a"] == process["fatal"] != process["b"] == process["c"]
    events = read_journal(Trial(str(tmp_path), "fatal", 0).journal)
    assert status(events) == "FAILED"
    assert events[-1]["reason"].startswith("its worker process ended with exit code 3: ")


@pytest.mark.slow
def test_a_worker_that_dies_idle_takes_no_trial_with_it(train: Train, tmp_path: Path) -> None:
    """It is replaced before it is given one."""
    killed: list[int] = []

    def tick(executor: ProcessPoolExecutor) -> None:
        idle = [w.process for w in executor.pool.values() if w.trial is None]
        if idle and not killed:
            idle[0].kill()
            idle[0].wait()
            killed.append(idle[0].pid)

    told = train(["a", "slow"], ["b", "c"], workers=2, tick=tick)

    assert len(killed) == 1
    assert sorted(arm for arm, _ in told) == ["a", "b", "c", "slow"]
    assert len({process for _, process in told}) == 3
    assert not list(tmp_path.glob("*/seed-0/journal.jsonl"))
