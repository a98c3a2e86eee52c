"""Locks end with their process, and keep a second one waiting until then."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mimetic.errors import RunError, UserError
from mimetic.files import remove_temporary_files
from mimetic.journal import Journal
from mimetic.study import locks
from mimetic.study.layout import Trial
from mimetic.study.locks import lock_run, locked_study, locked_trial, wait_for_workers
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial

HOLDER = """
import sys, time
from pathlib import Path
from mimetic.study.locks import locked_study, locked_trial
from mimetic.study.layout import Trial
trial = Trial(sys.argv[1], "a", 0)
trial.folder.mkdir(parents=True)
with locked_study(Path(sys.argv[1])), locked_trial(trial, lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[bytes]":
    """Return a process that holds a study and its trial."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process as nothing can be prepared for."""
    process.kill()
    process.communicate()


def test_a_study_is_run_once_and_free_after_kill(holder: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """The second is refused; SIGKILL frees the study."""
    try:
        with pytest.raises(UserError, match="is being run by another process"), locked_study(tmp_path):
            pass
    finally:
        end(holder)
    with locked_study(tmp_path):
        pass


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """The study's own go; a trial's are its worker's, which may still write; links are not followed."""
    study, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    names = (".plan.json.abc.tmp", "plan.json", ".lock")
    for folder in (study, study / "arm", study / "revisions/1/arm", study / "arm/seed-0/figures", elsewhere):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).touch()
    (study / "link").symlink_to(elsewhere)
    with locked_study(study):
        left = sorted(str(path.relative_to(tmp_path).parent) for path in tmp_path.rglob(".*.tmp"))
        assert left == ["elsewhere", "study/arm/seed-0/figures"]
    remove_temporary_files(study)
    assert {path.parent for path in tmp_path.rglob(".*.tmp")} == {elsewhere}
    assert len(list(tmp_path.rglob("plan.json"))) == 5


def test_a_run_is_mirrored_by_one_study(tmp_path: Path) -> None:
    """Two studies may need one stage at a time; those of another experiment have a run of their own."""
    stage = Trial(str(tmp_path), "stage", 0)
    first = lock_run(stage, "1")
    assert first is not None
    assert lock_run(stage, "1") is None
    assert lock_run(stage, "2") is not None
    releasing = threading.Thread(target=first.release)  # another thread than the one that took it
    releasing.start()
    releasing.join()
    assert lock_run(stage, "1") is not None


def test_a_trial_waits_for_its_worker(
    holder: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming says what it waits for, goes on once the worker is gone, and gives up after a while."""
    trial, said = Trial(str(tmp_path), "a", 0), []
    try:
        with locked_trial(trial, lambda: "stop") as held:
            assert not held
        monkeypatch.setattr(locks, "TIMEOUT_S", 0.0)
        with pytest.raises(RunError, match="a · seed 0 is still being trained"):
            wait_for_workers([trial], said.append)
        monkeypatch.setattr(locks, "TIMEOUT_S", 30.0)
        threading.Timer(0.3, holder.kill).start()
        wait_for_workers([trial], said.append)
    finally:
        end(holder)
    assert set(said) == {"waiting for a worker of an earlier run: a · seed 0"}
    with locked_trial(trial, lambda: None) as held:
        assert held


def test_a_trial_another_process_finished_is_not_trained_again(tmp_path: Path) -> None:
    """A stage that two studies need is trained by the one that came first."""
    trial = Trial(str(tmp_path), "a", 0)
    with Journal(trial.journal) as journal:
        journal.write("start")
        journal.write("end", status="FINISHED", reason=None, seconds=1.0)
    before = trial.journal.read_bytes()

    assert run_trial(trial, TrialCache(), lambda: None) == "FINISHED"
    assert trial.journal.read_bytes() == before
