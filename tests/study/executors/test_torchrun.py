"""Two processes run a study together, as torchrun starts them: failing, stopped, resumed, and done."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mimetic.journal import Event, read_journal
from mimetic.study.executors.ranks import launcher

ROOT = str(Path(__file__).parents[3])

RECIPE = """\
recipe: 1
name: brittle
model: {type: python, call: "brittle:build"}
data: {type: digits, train_size: 320, test_size: 32}
train: {epochs: 2, batch_size: 32}
seeds: 2
arms: {default: {}}
"""

BRITTLE = """\
import os, signal, time
from torch import nn

class Brittle(nn.Sequential):
    steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.steps == 5 and os.environ["RANK"] == "1":
            if os.environ["MISHAP"] == "mistake":
                raise ValueError("as asked")
            if os.environ["MISHAP"] == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if os.environ["MISHAP"] == "launcher":
                launcher = os.getppid()
                os.kill(launcher, signal.SIGKILL)
                while os.getppid() == launcher:  # a busy machine takes longer for it than for the trial
                    time.sleep(0.01)
        return super().forward(images)

def build(num_classes):
    return Brittle(nn.Flatten(), nn.Linear(64, num_classes))
"""


def run(folder: Path, mishap: str, *words: str) -> list[tuple[int, str]]:
    """Run the study in two processes; return what each exits with and what it says.

    There is no torchrun, which would end one when the other fails: each must end by itself.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "MISHAP": mishap}
    command = [sys.executable, "-m", "mimetic", "run", "recipe.yaml", "--allow-code", "--offline", *words]
    path = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
    members = [
        subprocess.Popen(
            [*command, "--root", "runs"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, **team, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [member.communicate(timeout=200)[0] for member in members]
    finally:
        for member in members:
            member.kill()
    return [(member.returncode, text) for member, text in zip(members, said, strict=True)]


def ends(folder: Path) -> list[Event]:
    """Return the last word of each trial that was begun."""
    return [read_journal(path)[-1] for path in sorted(folder.rglob("journal.jsonl"))]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.timeout(900)
def test_a_team_ends_and_goes_on(tmp_path: Path) -> None:
    """No way out leaves a process waiting or aborted, and what a team began it can go on with."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "brittle.py").write_text(BRITTLE)

    (code, first), (other_code, second) = run(tmp_path, "mistake")
    assert (code, other_code) == (1, 1), first + second
    assert "another torchrun process failed or was lost; `mimetic run … --resume`" in first
    assert "default · seed 0: ValueError: as asked (see " in second
    (kept,) = tmp_path.rglob("error-1.txt")
    assert "ValueError: as asked" in kept.read_text()
    assert [end["status"] for end in ends(tmp_path)] == ["FAILED"]

    (code, first), (other_code, second) = run(tmp_path, "interrupt", "--resume")
    assert (code, other_code) == (130, 0), first + second
    assert [end["status"] for end in ends(tmp_path)] == ["KILLED"]

    (code, first), (other_code, second) = run(tmp_path, "none", "--resume")
    assert (code, other_code) == (0, 0), first + second
    assert [end["status"] for end in ends(tmp_path)] == ["FINISHED", "FINISHED"]

    (code, first), (other_code, second) = run(tmp_path, "none", "--resume")  # there is nothing left to train
    assert (code, other_code) == (0, 0), first + second


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.timeout(300)
def test_a_team_whose_launcher_is_killed_ends(tmp_path: Path) -> None:
    """Killed by force, torchrun ends none of its processes: they stop by themselves."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "brittle.py").write_text(BRITTLE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    ended = subprocess.run(  # returns once the last process that holds its output has ended
        [*torchrun, "-m", "mimetic", "run", "recipe.yaml", "--allow-code", "--offline", "--root", "runs"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT, "MISHAP": "launcher"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
    assert [(end["status"], end["reason"]) for end in ends(tmp_path)] == [("KILLED", "torchrun is gone")]


@pytest.mark.parametrize(
    ("size", "here", "expected"),
    [
        (None, None, ""),
        (1, 1, ""),
        (4, 4, "torchrun --nproc-per-node 4 -m "),
        (8, 4, "torchrun … -m "),
    ],
)
def test_how_a_team_goes_on(
    size: int | None, here: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line to copy starts as many processes as there were; of several machines their owner knows more."""
    for name, value in (("WORLD_SIZE", size), ("LOCAL_WORLD_SIZE", here)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(value))

    assert launcher() == expected
