"""A disk that fills up while a trial writes: it fails, the others go on, and no file is there by half."""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mimetic import files
from mimetic.journal import read_journal, status
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load
from mimetic.study.layout import Trial
from mimetic.study.study import run
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.train import checkpoint
from mimetic.train.checkpoint import CHECKPOINT, WEIGHTS

TINY: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "plain_cnn", "widths": [4], "kernel_size": 3},
    "data": {"type": "digits", "train_size": 64, "test_size": 32},
    "train": {"epochs": 3, "batch_size": 32},
    "seeds": 2,
    "arms": {"default": {}},
}


def begin(folder: Path) -> Path:
    """Return the folder of a study that was not begun."""
    folder.mkdir()
    (folder / "resolved.yaml").write_text(resolved(load(TINY)))
    return folder


@pytest.fixture(scope="module")
def never_full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the weights of a trial that always had room."""
    study = begin(tmp_path_factory.mktemp("never-full") / "study")
    assert train(study, 0) == "FINISHED"
    return digest(study / "default" / "seed-0")


def train(study: Path, seed: int, shelf: TrialCache | None = None) -> str:
    """Train a trial in this process; return how it ended."""
    return run_trial(
        Trial(str(study), "default", seed), TrialCache() if shelf is None else shelf, lambda: None
    )


def full(file: str) -> OSError:
    """Return what a full disk raises."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)


def no_room_for_tensors(monkeypatch: pytest.MonkeyPatch, name: str, *, after: int) -> None:
    """Let writing checkpoints or weights fail half-way, some of them before excepted."""
    save, left = checkpoint.save_file, iter(range(after))

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        if name not in Path(path).name or next(left, None) is not None:
            save(tensors, path, metadata)
            return
        Path(path).write_bytes(b"half")
        raise full(str(path))

    monkeypatch.setattr(checkpoint, "save_file", half)


def no_room_for_text(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let the journal take a line half-way, after some, and then nothing."""
    write, left = os.write, iter(range(after))

    def some(file: int, data: bytes) -> int:
        if next(left, None) is not None:
            return write(file, data)
        if data.endswith(b"\n") and len(data) > 40:
            return write(file, data[:20])
        raise full("journal")

    monkeypatch.setattr(os, "write", some)


@pytest.mark.parametrize(
    ("fill", "named"),
    [
        (lambda patch: no_room_for_tensors(patch, CHECKPOINT, after=1), CHECKPOINT),
        (lambda patch: no_room_for_tensors(patch, WEIGHTS, after=0), WEIGHTS),
        (lambda patch: no_room_for_text(patch, after=7), "journal.jsonl"),
    ],
    ids=["checkpoint", "weights", "journal"],
)
def test_one_trial_fails_and_goes_on_later(
    fill: Callable[[pytest.MonkeyPatch], None],
    named: str,
    *,
    never_full: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The reason names the file; with room again the next is trained, and this one to its end."""
    study, shelf = begin(tmp_path / "study"), TrialCache()
    first = study / "default" / "seed-0"
    with monkeypatch.context() as patch:
        fill(patch)
        assert train(study, 0, shelf) == "FAILED"

    events = read_journal(first / "journal.jsonl")
    said = capfd.readouterr().err
    reason = str(events[-1].get("reason")) if named != "journal.jsonl" else said
    assert named in reason
    assert "No space left on device" in reason
    assert "choose another folder" in reason
    assert status(events) == ("FAILED" if named != "journal.jsonl" else "RUNNING")  # its pool ends that one
    assert not list(first.glob(".*.tmp"))
    assert not (first / WEIGHTS).exists()
    (plan,) = {event["plan"] for event in events if "plan" in event}
    assert checkpoint.load_checkpoint(first / CHECKPOINT, plan_hash=plan) is not None

    assert train(study, 1, shelf) == "FINISHED"
    assert train(study, 0, shelf) == "FINISHED"
    assert digest(first) == never_full


def digest(folder: Path) -> str:
    """Return a digest of a trial's final weights."""
    return sha256((folder / WEIGHTS).read_bytes()).hexdigest()


class Limiter:
    """A display that lets the worker's files grow no further, or lets it open no other, after an epoch."""

    def __init__(self, kind: int = resource.RLIMIT_FSIZE) -> None:
        """Take the limit."""
        self.kind = kind

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Take in nothing."""

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Limit whoever writes the journal."""
        if any(event.get("epoch") == 1 for event in events):
            for entry in Path("/proc").glob("[0-9]*/fd/*"):
                try:
                    writer = int(entry.parts[2]) if entry.readlink() == trial.journal else None
                except OSError:
                    continue
                if writer is not None:
                    most = trial.journal.stat().st_size if self.kind == resource.RLIMIT_FSIZE else 3
                    resource.prlimit(writer, self.kind, (most, most))

    def message(self, text: str) -> None:
        """Take in nothing."""


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (resource.RLIMIT_FSIZE, "the journal cannot be written (File too large): make room"),
        (resource.RLIMIT_NOFILE, "the file cannot be written ([Errno 24] Too many open files"),
    ],
    ids=["size", "number"],
)
def test_a_worker_that_can_write_nothing(kind: int, message: str, tmp_path: Path) -> None:
    """Where its journal takes not even its end, the coordinator writes it; the trial can go on."""
    long = {"epochs": 200, "batch_size": 32, "eval_every": 50, "checkpoint": {"every": 50}}
    recipe = load({**TINY, "train": long, "seeds": 1})
    result = run(recipe, root=tmp_path, offline=True, workers=1, display=Limiter(kind))
    trial = Trial(str(result.folder), "default", 0)
    assert result.statuses == {trial.name: "FAILED"}
    reason = read_journal(trial.journal)[-1]["reason"]
    assert message in reason

    assert run_trial(trial, TrialCache(), lambda: None) == "FINISHED"
    cut = digest(trial.folder)
    shutil.rmtree(trial.folder)
    assert run_trial(trial, TrialCache(), lambda: None) == "FINISHED"
    assert digest(trial.folder) == cut


class Listener(Limiter):
    """A display that collects the messages."""

    def __init__(self) -> None:
        """Start with none."""
        self.messages: list[str] = []

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in nothing."""

    def message(self, text: str) -> None:
        """Keep a message."""
        self.messages.append(text)


def test_a_disk_that_is_full_at_the_end(
    in_this_process: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison is returned, the file named; the study is continued as soon as there is room."""
    write, display = files._write, Listener()

    def no_room(path: Path, text: str) -> None:
        if "comparison" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    with in_this_process(), monkeypatch.context() as patch:
        patch.setattr(files, "_write", no_room)
        result = run(load(TINY), root=tmp_path, offline=True, display=display)
    assert set(result.statuses.values()) == {"FINISHED"}
    assert not result.complete
    assert [row.n for row in result.comparison.rows] == [2]
    (message,) = display.messages
    assert str(result.folder / "comparison.md") in message
    assert "No space left on device" in message

    with in_this_process():
        again = run(load(TINY), root=tmp_path, offline=True, resume=True)
    assert again.complete
    assert again.folder == result.folder
    assert (result.folder / "comparison.json").is_file()


def test_a_picture_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: the others are drawn, and a note names the one that is missing."""

    def broken() -> Figure:
        raise SystemError("font")

    pictures = {"broken.png": broken, "drawn.png": lambda: Figure(figsize=(0.1, 0.1))}
    monkeypatch.setattr("mimetic.study.trials.trial.filter_pictures", lambda *_: pictures)
    study = begin(tmp_path / "study")
    assert train(study, 0) == "FINISHED"

    folder = study / "default" / "seed-0"
    events = read_journal(folder / "journal.jsonl")
    assert {event["file"] for event in events if event["event"] == "artifact"} >= {"pictures/drawn.png"}
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any(str(folder / "pictures/broken.png") in note and "SystemError: font" in note for note in notes)
