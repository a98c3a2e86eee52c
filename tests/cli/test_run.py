"""`mimetic run`: real trainings of a tiny recipe, interrupted ones too, and what is refused before any."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from mimetic.journal import read_journal, status
from mimetic.train.profiling import SUMMARY, TRACE

Variables = dict[str, str]

Call = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]

LONG = ["--set", "train.epochs=5000", "--set", "seeds=2", "--workers", "2"]


def statuses(root: Path) -> list[str]:
    """Return how the trials below a root ended, by their journals."""
    return sorted(status(read_journal(path)) for path in root.rglob("journal.jsonl"))


def tracked(root: Path) -> dict[str, list[str]]:
    """Return arm → statuses of its runs in the store; the summary run has no arm."""
    query = (
        "select coalesce(p.value, 'summary'), r.status from runs r "
        "left join params p on p.run_uuid = r.run_uuid and p.key = 'arm'"
    )
    found: dict[str, list[str]] = {}
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        for arm, ended in database.execute(query):
            found.setdefault(arm, []).append(ended)
    return found


def workers_of(root: Path) -> list[int]:
    """Return the worker processes that write below a root."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            files = [str(link.readlink()) for link in (folder / "fd").iterdir()]
            if any(file.startswith(str(root)) for file in files):
                found.append(int(folder.name))
    return found


def wait_for(condition: Any, *, seconds: float = 250) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_offline(tiny: Path, call: Call, tmp_path: Path, in_this_process: Any) -> None:
    """Exit code 0; the table on stdout, progress on stderr, journals on the disk, and no store."""
    root = tmp_path / "runs"
    with in_this_process():
        done = call("run", tiny, "--root", root, "--offline", "--workers", "1")
    assert done.exit_code == 0, done.stderr
    (folder,) = (root / "studies" / "tiny").iterdir()
    assert [line.split()[0] for line in done.stdout.splitlines() if line.strip()][2:] == [
        "default",
        "frozen",
        "study",
    ]
    assert done.stdout.rstrip().endswith(f"study    {folder}")
    assert done.stderr.splitlines()[0] == f"{folder}: 2 trials to run"
    ends = sorted(line.partition("] ")[2].partition(" in ")[0] for line in done.stderr.splitlines()[1:])
    assert ends == ["default · seed 0: FINISHED", "frozen · seed 0: FINISHED"]
    assert statuses(root) == ["FINISHED", "FINISHED"]
    assert not (root / "mlflow.db").exists()


def test_interrupted(tiny: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: exit 130, the comparison of what there is, and the way on."""

    class Interrupted:
        def run(self, _waves: object, tick: Callable[[], None]) -> None:
            tick()
            raise KeyboardInterrupt

    monkeypatch.setattr("mimetic.study.study.pick_executor", lambda *_, **__: Interrupted())
    result = call("run", tiny, "--root", tmp_path / "runs", "--offline", "--set", "train.epochs=9")
    assert result.exit_code == 130, result.output
    given = "--set train.epochs=9 --offline"
    assert f"continue mimetic run {tiny} {given} --root {tmp_path / 'runs'} --resume" in result.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_tracked_interrupted_and_resumed(
    tiny: Path, call: Call, surroundings: Variables, tmp_path: Path, empty_store: Callable[[Path], Path]
) -> None:
    """Ctrl-C: exit 130, every run KILLED in journal and store, no process left, and the way on."""
    root = empty_store(tmp_path / "runs")
    command = [sys.executable, "-m", "mimetic", "run", str(tiny), "--root", str(root), *LONG]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings,
        start_new_session=True,
    ) as running:
        try:
            wait_for(
                lambda: any(
                    event["event"] == "epoch" and event["epoch"] > 0
                    for path in root.rglob("journal.jsonl")
                    for event in read_journal(path)
                )
            )
            os.killpg(running.pid, signal.SIGINT)
            output, said = running.communicate(timeout=200)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "Traceback" not in output + said
    assert "KILLED" in said
    given = "--set train.epochs=5000 --set seeds=2 --workers 2"
    assert f"continue mimetic run {tiny} {given} --root {root} --resume" in output
    assert set(statuses(root)) == {"KILLED"}
    runs = tracked(root)
    assert sorted(runs) == ["default", "frozen", "summary"]
    assert [len(runs[arm]) for arm in sorted(runs)] == [2, 2, 1]
    assert {ended for arm in runs.values() for ended in arm} == {"KILLED"}
    assert workers_of(root) == []
    refused = call("run", tiny, "--root", root, "--resume")
    assert refused.exit_code == 2
    assert "MIM-Y321" in refused.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.parametrize(
    "names", [["SIGTERM"], ["SIGHUP"], ["SIGSTOP", "SIGCONT", "SIGINT", "SIGINT"]], ids="-".join
)
def test_other_signals_end_a_study_as_politely(
    names: list[str], tiny: Path, surroundings: Variables, tmp_path: Path
) -> None:
    """`kill`, a closed terminal, a pause, Ctrl-C twice: the trials end as KILLED, and no worker stays."""
    root = tmp_path / "runs"
    command = [sys.executable, "-m", "mimetic", "run", str(tiny), "--root", str(root), "--offline", *LONG]
    command[-1] = "1"  # worker; two are interrupted above
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings
    ) as running:
        try:
            wait_for(lambda: "RUNNING" in statuses(root))
            for name in names:
                running.send_signal(getattr(signal, name))
                time.sleep(0.3 if name != names[-1] else 0.0)
            _, said = running.communicate(timeout=200)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "Traceback" not in said
    wait_for(lambda: workers_of(root) == [])  # after a second Ctrl-C the coordinator does not wait for them
    assert set(statuses(root)) == {"KILLED"}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_a_reader_of_progress_that_goes_away(tiny: Path, surroundings: Variables, tmp_path: Path) -> None:
    """`mimetic run … 2>&1 | head -1` trains to the end; the study outlives its terminal."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [
        sys.executable,
        "-m",
        "mimetic",
        "run",
        str(tiny),
        "--root",
        str(tmp_path / "runs"),
        "--offline",
        "--workers",
        "1",
    ]
    done = subprocess.run(command, stdout=writer, stderr=writer, check=False, env=surroundings)
    os.close(writer)
    assert done.returncode == 0
    assert statuses(tmp_path / "runs") == ["FINISHED", "FINISHED"]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.timeout(900)  # a busy machine takes minutes
def test_resume_with_a_damaged_checkpoint(
    tiny: Path, process: Process, surroundings: Variables, tmp_path: Path
) -> None:
    """The trial begins anew and says why; the study completes."""
    root = tmp_path / "runs"
    command = [sys.executable, "-m", "mimetic", "run", str(tiny), "--root", str(root), "--offline"]
    longer = ["--set", "train.epochs=100", "--workers", "1"]
    with subprocess.Popen([*command, *longer], stderr=subprocess.DEVNULL, env=surroundings) as running:
        wait_for(lambda: any(root.rglob("state.safetensors")))
        running.send_signal(signal.SIGINT)
        running.wait(timeout=200)
    states = list(root.rglob("state.safetensors"))
    for state in states:
        state.write_bytes(b"no state")
    done = process("run", tiny, "--root", root, "--offline", "--resume", *longer)
    assert done.returncode == 0, done.stderr
    assert "the checkpoint cannot be read" in done.stderr
    again = process("run", tiny, "--root", root, "--offline", "--resume", *longer)
    assert again.returncode == 0
    assert "every trial has finished already" in again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--root", "/dev/null/x"], "/dev/null/x: runs cannot be written there"),
        (["--device", "gpu"], "[MIM-T001]"),
        (["--device", "cuda:99"], "`cuda:99` is not available: "),
        (["--set", "train.device=cuda:99"], "--set:1:14: arms.default.train.device: `cuda:99` is not"),
        (["--set", "data=cifar10"], "data: `cifar10` is not in "),
        (["--resume"], "there is no study of `tiny` below"),
        (["--set", "arms.frozen.init.filters.match.kind=embedding"], "matches nothing in this model"),
    ],
)
def test_refused_before_anything_starts(
    words: list[str], said: str, tiny: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, the reason with its place, and no study on the disk."""
    monkeypatch.chdir(tiny.parent)
    monkeypatch.delenv("MIMETIC_DATA", raising=False)
    result = call("run", tiny.name, *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert list(tiny.parent.rglob("study.json")) == []


def test_a_store_nobody_knows(
    tiny: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$MLFLOW_TRACKING_URI is looked at before a study is made."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense")
    result = call("run", tiny, "--root", tmp_path / "runs")
    assert result.exit_code == 2
    assert "$MLFLOW_TRACKING_URI is `nonsense`" in result.stderr
    assert not (tmp_path / "runs" / "studies").exists()


def test_a_run_that_failed(tiny: Path, call: Call, tmp_path: Path, in_this_process: Any) -> None:
    """Exit code 1 where training diverges; the reason and the way on are shown."""
    words = ["--workers", "1", "--set", "train.optimizer={type: sgd, lr: 1e30}"]
    with in_this_process():
        result = call("run", tiny, "--root", tmp_path / "runs", "--offline", *words)
    assert result.exit_code == 1
    assert "FAILED" in result.stderr
    assert "continue mimetic run " in result.stdout
    assert " --workers 1 --offline --root " in result.stdout
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_the_first_trial_is_profiled(tiny: Path, call: Call, tmp_path: Path, in_this_process: Any) -> None:
    """The summary is printed, with where the trace lies."""
    root = tmp_path / "mlruns"
    with in_this_process():
        result = call("run", tiny, "--root", root, "--offline", "--profile", "--set", "train.epochs=7")

    assert result.exit_code == 0, result.output
    (trace,) = root.rglob(TRACE)
    assert trace.parent.parts[-2:] == ("default", "seed-0")
    assert f"trace    {trace}\n" in result.output
    summary = (trace.parent / SUMMARY).read_text()
    assert summary.startswith("8 steps\n")
    assert "aten::convolution_backward" in summary
    assert summary.splitlines()[-1] in result.output
