"""`kill -9` at random moments of a study: after `--resume` nothing is lost or twice.

The coordinator is killed, also while it lets the study follow a recipe that grew, a worker, both at once, or
one resume after another in a chain. CI kills once in the queue and three times in the pool, whose studies
grow after each kill; `MIMETIC_KILLS=20 pytest -m slow tests/study/test_kill.py` kills twenty times in each,
four of each kind. A moment is a number of journal lines, or the folder of a revision, and a few milliseconds,
so that it does not depend on how fast the machine is.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mimetic.journal import history, read_journal, status

KILLS = int(os.environ.get("MIMETIC_KILLS", "1"))
VICTIMS = ("coordinator", "growth", "worker", "both", "chain")
TIMED = {"images_per_second", "epoch_seconds"}
OPEN = ("RUNNING", "SCHEDULED")

RECIPE = """\
recipe: 1
name: tiny
model: {type: convmixer, dim: 16, depth: 2, kernel_size: 3, patch_size: 1}
data: {type: digits, train_size: 640, test_size: 100, augment: [{type: crop, padding: 1}]}
train:
  epochs: 4
  batch_size: 32
  cutmix: 1.0
  schedule: one_cycle
  checkpoint: {every: 2, minutes: 0.002}
seeds: 2
arms:
  default: {train: {schedule: constant}}
  frozen:
    init:
      - id: f
        match: {kind: depthwise_conv}
        covariance: {type: filters, from: {stage: source}}
        freeze: true
stages:
  source: {seeds: 1, model: {dim: 8}, train: {epochs: 2}}
"""
SHORT = RECIPE.replace("  epochs: 4", "  epochs: 2")
ONE_SEED = SHORT.replace("seeds: 2", "seeds: 1")
GROWTH = (ONE_SEED.partition("  frozen:")[0], ONE_SEED, SHORT, RECIPE)
"""A study that grows to the same end by an arm with its stage, by seeds, and by epochs.

One arm then goes on from its checkpoints. The learning rates of the other depend on the number of epochs: it
is trained anew.
"""
PLACES = ("studies/tiny/*/*", "stages/*/*")
TRIALS = 5
"""The stage's one, and two seeds of two arms; the store holds a run for each, and the summary."""


class Study:
    """A study that is started, killed and resumed as a user would."""

    def __init__(self, root: Path, *, workers: int, recipe: str = RECIPE) -> None:
        """Keep where it runs and on how many workers."""
        self.root, self.workers = root, workers
        root.mkdir(parents=True)
        self.follow(recipe)

    def follow(self, recipe: str) -> None:
        """Change the recipe."""
        (self.root / "tiny.yaml").write_text(recipe, encoding="utf-8")

    @contextlib.contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Start or resume the study in a process of its own."""
        words = ["run", str(self.root / "tiny.yaml"), "--root", str(self.root)]
        started = any(self.root.glob("studies/tiny/*"))
        words += ["--workers", str(self.workers), *(["--resume"] if started else [])]
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        with (self.root / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "mimetic", *words], stdout=output, stderr=output, env=environment
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def journals(self) -> list[Path]:
        """Return the journals of the study and of its stage."""
        return sorted(path for place in PLACES for path in self.root.glob(f"{place}/seed-*/journal.jsonl"))

    def lines(self) -> int:
        """Count what the journals hold."""
        return sum(path.read_bytes().count(b"\n") for path in self.journals())

    def revisions(self) -> int:
        """Count the recipes that it followed, the one that it is about to follow included."""
        return len(list(self.root.glob("studies/tiny/*/revisions/*")))

    def finish(self) -> None:
        """Run to the end; a trial whose worker was killed needs one more resume."""
        for _ in range(3):
            with self.running() as process:
                if process.wait(timeout=600) == 0:
                    return
        pytest.fail((self.root / "output.txt").read_text(encoding="utf-8"))

    def outcome(self, folder: Path | None = None) -> dict[str, Any]:
        """Return the final weights and metrics of each trial, of one study or of all."""
        found = {}
        for path in self.journals():
            if folder is not None and "studies" in path.parts and not path.is_relative_to(folder):
                continue
            events = read_journal(path)
            curves = {k: v for k, v in history(events).items() if k not in TIMED}
            weights = sha256((path.parent / "weights.safetensors").read_bytes()).hexdigest()
            found["/".join(path.parts[-3:-1])] = (status(events), weights, curves)
        return found


def children(pid: int) -> list[int]:
    """Return the workers of a coordinator."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"mimetic.study.executors.worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return sorted(found)


def kill_once(study: Study, dice: random.Random, victim: str) -> None:
    """Run the study until a random number of lines was written, and kill what is named."""
    wanted, pause = study.lines() + dice.randint(0, 12), dice.random() * 0.1
    followed = study.revisions() if victim == "growth" else sys.maxsize
    with study.running() as process:
        while process.poll() is None and (study.lines() < wanted or not children(process.pid)):
            if study.revisions() > followed:  # it takes some 30 ms to follow
                pause *= 0.5
                break
            time.sleep(0.005)
        time.sleep(pause)
        workers = children(process.pid)
        one = [dice.choice(workers)] if workers else []
        doomed = {"worker": one or [process.pid], "both": [process.pid, *workers]}.get(victim, [process.pid])
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if victim == "worker":  # the others go on; the coordinator is killed a little later
            time.sleep(2 * pause)
    for _ in range(2 if victim == "chain" else 0):  # while it finds out what to resume, or just after
        with study.running() as process, contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=dice.random() * 3.0)


def check_store(root: Path, study: Study) -> None:
    """No run left open, none twice, and exactly the points of the journals; those of the summary once."""
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        runs = database.execute(
            "select r.run_uuid, r.status, a.value, s.value from runs r "
            "left join params a on a.run_uuid = r.run_uuid and a.key = 'arm' "
            "left join params s on s.run_uuid = r.run_uuid and s.key = 'seed' "
            "left join tags k on k.run_uuid = r.run_uuid and k.key = 'mimetic.kind' "
            "where r.lifecycle_stage = 'active' and k.value != 'former'"
        ).fetchall()
        points = database.execute(
            "select run_uuid, key, step, value from metrics where is_nan = 0"
        ).fetchall()
    (summary,) = (run for run, _, arm, _ in runs if arm is None)
    figures = Counter((key, value) for run, key, _, value in points if run == summary)
    assert set(figures.values()) == {1}
    assert not list(root.glob("s*/*/*/**/.*.tmp"))
    assert Counter(ended for _, ended, _, _ in runs) == {"FINISHED": TRIALS + 1}
    place = {run: f"{arm}/seed-{seed}" for run, _, arm, seed in runs if arm is not None}
    assert len(place) == len(set(place.values())) == TRIALS
    for path in study.journals():
        name = "/".join(path.parts[-3:-1])
        stored = Counter((key, step) for run, key, step, _ in points if place.get(run) == name)
        assert set(stored.values()) == {1}
        own = [(k, s, v) for run, k, s, v in points if place.get(run) == name]
        values = {(k, s): v for k, s, v in own if k not in TIMED and not k.startswith("best/")}
        curves = {k: v for k, v in history(read_journal(path)).items() if k not in TIMED}
        assert values == {
            (key, step): value for key, curve in curves.items() for step, value in curve.items()
        }


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Any, warm: Any, no_matplotlib: str
) -> Study:
    """Return a root in which two commands ran the study at once, and nobody killed them."""
    study = Study(tmp_path_factory.mktemp("straight") / "runs", workers=1)
    empty_store(study.root)  # its creation has tests
    with warm(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", no_matplotlib, prepend=os.pathsep)
        with study.running() as first, study.running() as second:
            codes = [process.wait(timeout=600) for process in (first, second)]
    assert codes == [0, 0], (study.root / "output.txt").read_text(encoding="utf-8")
    return study


@pytest.fixture(scope="module")
def straight(shared: Study) -> dict[str, Any]:
    """Return what a study ends with that nobody killed."""
    return shared.outcome(min(shared.root.glob("studies/tiny/*")))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("workers", "recipes"), [(1, (RECIPE,)), (2, GROWTH)], ids=["queue", "pool"])
def test_killed_at_random_moments(
    workers: int, recipes: Sequence[str], straight: dict[str, Any], tmp_path: Path
) -> None:
    """Weights and metrics are those of the study nobody killed, bit for bit; the store agrees.

    Each of the pool's studies grows after its kills, until it has the whole recipe.
    """
    dice = random.Random(f"{workers}")
    kills: list[tuple[int, str]] = []
    number, total = 0, max(KILLS, len(recipes) - 1)
    while len(kills) < total:
        study = Study(tmp_path / f"runs-{number}", workers=workers, recipe=recipes[0])
        number += 1
        for step in range(1, 1 + min(5, total - len(kills))):
            victim = VICTIMS[(len(kills) + workers - 2) % len(VICTIMS)]  # CI has a chain in the queue
            kills.append((study.lines(), victim))
            kill_once(study, dice, victim)
            study.follow(recipes[min(step, len(recipes) - 1)])
        study.follow(recipes[-1])
        study.finish()
        assert study.outcome() == straight, kills
        check_store(study.root, study)
    (tmp_path / "kills.json").write_text(json.dumps(kills))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.timeout(1200)
def test_two_commands_at_once(shared: Study, straight: dict[str, Any]) -> None:
    """Two studies share a root, its store and a stage; of two that resume one study the second is refused."""
    assert len(list(shared.root.glob("studies/tiny/*/study.json"))) == 2
    latest = max(shared.root.glob("studies/tiny/*"))
    assert shared.outcome(latest) == straight

    shutil.rmtree(latest / "frozen")
    with shared.running() as first:
        while not list(latest.glob("frozen/*/journal.jsonl")):
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)  # or it might end before the second one starts
        with shared.running() as second:
            assert second.wait(timeout=300) == 2
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=600) == 0
    assert "MIM-Y110" in (shared.root / "output.txt").read_text(encoding="utf-8")
    assert shared.outcome(latest) == straight
