"""The journal survives what kills its writer."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mimetic.errors import RunError
from mimetic.journal import Journal, history, read_journal, status


def _write(path: Path, *events: tuple[str, dict[str, object]]) -> None:
    with Journal(path) as journal:
        for event, fields in events:
            journal.write(event, **fields)


def test_events_come_back_in_order(tmp_path: Path) -> None:
    """What is written is read, in order, with a time."""
    path = tmp_path / "arm" / "seed-0" / "journal.jsonl"
    _write(path, ("start", {"arm": "a", "seed": 0}), ("checkpoint", {"epoch": 1, "step": 9}))
    events = read_journal(path)
    times = [event.pop("time") for event in events]
    assert events == [
        {"event": "start", "arm": "a", "seed": 0},
        {"event": "checkpoint", "epoch": 1, "step": 9},
    ]
    assert sorted(times) == times


def test_missing_journal_has_no_events(tmp_path: Path) -> None:
    """A trial that never began has no events and is pending."""
    assert read_journal(tmp_path / "journal.jsonl") == []
    assert status([]) == "PENDING"


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_torn_line_is_skipped_and_closed(tmp_path: Path, cut: int) -> None:
    """After a kill in the middle of a line, reader and next writer lose that line only."""
    path = tmp_path / "journal.jsonl"
    _write(path, ("start", {"arm": "ä"}), ("checkpoint", {"epoch": 1}))
    path.write_bytes(path.read_bytes()[:-cut])
    assert [event["event"] for event in read_journal(path)] == ["start"] or cut == 1
    _write(path, ("end", {"status": "KILLED"}))
    assert [e["event"] for e in read_journal(path) if e["event"] != "checkpoint"] == ["start", "end"]


def test_metrics_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    """Every line is strict JSON; nan and infinities come back as floats."""
    path = tmp_path / "journal.jsonl"
    metrics = {"train/loss": math.nan, "lr": math.inf, "val/loss": -math.inf, "val/acc": 0.5}
    _write(path, ("epoch", {"epoch": 1, "step": 3, "metrics": metrics}))

    def refuse(word: str) -> float:
        raise AssertionError(word)

    json.loads(path.read_text(), parse_constant=refuse)
    found = read_journal(path)[0]["metrics"]
    assert math.isnan(found.pop("train/loss"))
    assert {"lr": math.inf, "val/loss": -math.inf, "val/acc": 0.5} == found


def test_later_duplicate_of_an_epoch_wins(tmp_path: Path) -> None:
    """A resumed trial repeats epochs; the history holds each once."""
    path = tmp_path / "journal.jsonl"
    epochs = [
        (0, {"test/acc": 0.1}),
        (1, {"test/acc": 0.2, "lr": 1.0}),
        (2, {"test/acc": 0.3}),
        (1, {"lr": 2.0}),
    ]
    _write(path, *(("epoch", {"epoch": epoch, "metrics": metrics}) for epoch, metrics in epochs))
    events = read_journal(path)
    assert history(events) == {"test/acc": {0: 0.1, 2: 0.3}, "lr": {1: 2.0}}


def test_status_is_that_of_the_last_start_or_end() -> None:
    """A trial that was killed and resumed runs again, until its end."""
    start, killed, finished = (
        {"event": "start"},
        {"event": "end", "status": "KILLED"},
        {"event": "end", "status": "FINISHED"},
    )
    assert status([start, {"event": "epoch"}]) == "RUNNING"
    assert status([start, killed]) == "KILLED"
    assert status([start, killed, start]) == "RUNNING"
    assert status([start, killed, start, finished, {"event": "artifact"}]) == "FINISHED"


def test_full_disk_is_a_stated_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails says which file and why."""
    journal = Journal(tmp_path / "journal.jsonl")

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunError, match=r"journal\.jsonl: the journal cannot be written \(No space left"):
        journal.write("start")
    monkeypatch.undo()
    journal.close()


def test_folder_that_cannot_be_made_is_a_stated_error(tmp_path: Path) -> None:
    """A file where the folder should be is reported, not raised bare."""
    (tmp_path / "arm").write_text("")
    with pytest.raises(RunError, match="the journal cannot be written"):
        Journal(tmp_path / "arm" / "journal.jsonl")


def test_reading_journals_imports_no_torch() -> None:
    """A coordinator that watches trials does not pay for torch."""
    code = "import sys; from mimetic.journal import read_journal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
