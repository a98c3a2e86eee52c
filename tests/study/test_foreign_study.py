"""A study that a stranger sent: no link is followed out of it, no pipe blocks, and damage has a message."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mimetic.errors import UserError
from mimetic.journal import Follower, Journal, read_journal
from mimetic.sources.find import stage_folders
from mimetic.study.comparing.comparison import of_studies
from mimetic.study.record import read_record
from mimetic.study.sync import sync
from mimetic.tracking.uploader import JournalUploader

RECORD: dict[str, Any] = {"arms": ["a", "b"], "seeds": [0], "baseline": "a", "metric": "test/acc"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a study of two finished trials."""
    study = tmp_path / "studies" / "x" / "1"
    for arm in RECORD["arms"]:
        with Journal(study / arm / "seed-0" / "journal.jsonl") as journal:
            journal.write("start")
            journal.write("epoch", epoch=1, metrics={"test/acc": 0.5})
            journal.write("end", status="FINISHED", reason=None, seconds=1.0)
    (study / "study.json").write_text(json.dumps(RECORD))
    return study


@pytest.mark.parametrize(
    "name", ["study.json", "resolved.yaml", "a/seed-0/journal.jsonl", "a/seed-0/log", ".lock"]
)
@pytest.mark.parametrize("verb", ["compare", "sync"])
def test_links_out_of_a_study(verb: str, name: str, folder: Path, tmp_path: Path) -> None:
    """Whatever the link is called, before anything is read through it or written."""
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(RECORD))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-C073"):
        of_studies([folder])[0] if verb == "compare" else sync(folder, root=tmp_path)
    assert secret.read_text() == json.dumps(RECORD)


def test_stages_elsewhere(folder: Path, tmp_path: Path) -> None:
    """A study names folders of stages, which are not uploaded from anywhere."""
    (folder / "resolved.yaml").write_text("recipe: 1\nname: x\narms: {a: {}, b: {}}\n")
    (folder / "stages.json").write_text(json.dumps({"s": str(tmp_path)}))

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-Y004"):
        sync(folder, root=tmp_path)


@pytest.mark.parametrize("file", ["/etc/passwd", "../../../secret", "../b/x"])
def test_artifacts_outside_of_the_trial(file: str, folder: Path, tmp_path: Path) -> None:
    """A journal names the files that are uploaded."""
    (tmp_path / "secret").write_text("secret")

    class Store:
        client = None

    uploader = JournalUploader(Store(), "run", folder / "a" / "seed-0" / "journal.jsonl")  # type: ignore[arg-type]
    notes = uploader._log_artifact({"file": file}, uploader._stored)  # type: ignore[arg-type]

    assert len(notes) == 1
    assert "not uploaded" in notes[0]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"arms": ["a"]}',
        json.dumps(RECORD | {"arms": ["../../x"]}),
        json.dumps(RECORD | {"arms": 3}),
        json.dumps(RECORD | {"seeds": ["0"]}),
        json.dumps(RECORD | {"metric": None}),
        json.dumps(RECORD | {"environment": [1]}),
    ],
)
def test_damaged_records(damage: str, folder: Path) -> None:
    """What is no record of a study is refused by name."""
    (folder / "study.json").write_text(damage)

    with pytest.raises(UserError, match=r"study\.json", check=lambda e: e.code in {"MIM-Y114", "MIM-Y115"}):
        read_record(folder)


@pytest.mark.parametrize("damage", ["[]", "{", "[" * 100_000, '{"s": 3}', "null"])
def test_damaged_stages(damage: str, folder: Path) -> None:
    """Likewise the file of the stages."""
    (folder / "stages.json").write_text(damage)

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-S017"):
        stage_folders(folder)


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"event": "epoch", "time": 1, "epoch": "1", "metrics": {}}',
        b'{"event": "epoch", "time": 1, "epoch": 1e400, "metrics": {}}',
        b'{"event": "epoch", "time": 1, "epoch": 2, "metrics": [1]}',
        b'{"event": "epoch", "time": NaN, "epoch": 2, "metrics": {}}',
        b'{"event": "epoch", "time": 1, "epoch": 2, "metrics": {"a": ' + b"9" * 400 + b"}}",
        b'{"event": "end", "time": 1, "status": "WELL"}',
        b'{"event": "end", "time": 1, "status": []}',
        b'{"event": "end", "time": null, "status": "FAILED"}',
        b'{"event": "end", "time": 1, "status": "FAILED", "seconds": "2"}',
        b'{"event": "artifact", "time": 1, "file": 3}',
        b'{"event": {}, "time": 1}',
    ],
)
def test_damaged_journals(line: bytes, folder: Path) -> None:
    """A damaged line is skipped; the rest counts."""
    path = folder / "a" / "seed-0" / "journal.jsonl"
    events = read_journal(path)
    path.write_bytes(line + b"\n" + path.read_bytes())

    assert read_journal(path) == events == Follower(path).new()
    assert of_studies([folder])[0].row("a").mean == 50.0


def test_pipes(folder: Path) -> None:
    """A pipe in place of a file ends in a message, not in a wait."""
    for name in ("study.json", "a/seed-0/journal.jsonl", "b/x"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    with pytest.raises(UserError):
        read_record(folder)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-L008"):
        read_journal(folder / "a" / "seed-0" / "journal.jsonl")
