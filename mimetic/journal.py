"""Read and write the journal of a trial: one JSON object per line, appended as events happen.

The journal is the truth about a trial; a tracking store is a copy of it. Each event is one `write` of one
line, so readers never wait for the writer, and `kill -9` or a full disk costs at most the line being
written. A resumed trial appends to the same file and repeats the epochs after its checkpoint: the later line
wins.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from mimetic.errors import RunError
from mimetic.files import json_value, open_regular, parse_json, read_regular

Event = dict[str, Any]
Status = Literal["PENDING", "RUNNING", "FINISHED", "FAILED", "KILLED"]

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "epoch": ("epoch", "metrics"),
    "artifact": ("file",),
    "end": ("status",),
    "initialize": ("done", "total"),
    "reused": ("study", "trial"),
}
_NUMBERS = frozenset({"time", "epoch", "step", "steps", "seconds", "first_step_seconds", "done", "total"})
_LARGEST = 2**53
_CLOSED = -1
"""In place of the descriptor of an open file."""
_EPOCHS = (b'{"event": "epoch"', b'{"event": "progress"')
"""How lines start that do not affect the status of a trial, as `Journal` writes them."""
_SYNCED = frozenset({"start", "epoch", "checkpoint", "end"})


class JournalError(RunError):
    """A journal cannot be written, e.g. on a full disk."""


class Journal:
    """Append events to a trial's journal; its folder is created if it is missing.

    Events that must survive a power cut (start, epoch, checkpoint, end) are synced to the disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            self._end_torn_line()
        except OSError as error:
            raise _write_error(self.path, error) from error

    def write(self, event: str, /, **fields: object) -> None:
        """Append one event with the current time, in seconds since 1970.

        Args:
            event: Kind of event: start, epoch, progress, checkpoint, artifact or end.
            fields: JSON values; numbers that are not finite are written as strings.

        Raises:
            JournalError: If the line cannot be written, e.g. on a full disk.
        """
        entry = {"event": event, "time": round(time.time(), 3), **fields}
        text = json.dumps(json_value(entry, not_finite=str), ensure_ascii=False, allow_nan=False)
        rest = text.encode() + b"\n"
        try:
            while rest:  # one write suffices unless the disk fills up
                rest = rest[os.write(self._file, rest) :]
            if event in _SYNCED:
                os.fsync(self._file)
        except OSError as error:
            raise _write_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._file != _CLOSED:
            os.close(self._file)
            self._file = _CLOSED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_torn_line(self) -> None:
        """End a line that a killed writer left unfinished."""
        size = os.fstat(self._file).st_size
        if size > 0 and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


class NullJournal(Journal):
    """Takes the place of the journal in processes that do not write it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self._file = Path(path), _CLOSED

    def write(self, event: str, /, **fields: object) -> None:
        """Write nothing."""


def read_journal(path: str | os.PathLike[str], *, epochs: bool = True) -> list[Event]:
    """Return a journal's events in order; a missing journal has none.

    Lines a killed writer left unfinished are skipped. Metrics that are not finite come back as floats.
    Without `epochs` their lines, which are most, are not parsed.
    """
    try:
        lines = read_regular(Path(path)).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalError(
            f"{path}: the journal cannot be read ({error.strerror})", code="MIM-L008"
        ) from error
    wanted = lines if epochs else [line for line in lines if not line.startswith(_EPOCHS)]
    return [event for line in wanted if (event := _parse(line)) is not None]


class Follower:
    """Follow a journal that grows: each call of `new` returns the events appended since the last.

    Attributes:
        path: The journal; it need not exist yet.
        offset: Bytes read so far; set it back to read events again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.offset = 0

    def new(self) -> list[Event]:
        """Return the events of complete lines since the last call; a partial line is left for the next."""
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset)
                complete, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self.offset += len(complete) + len(newline)
        return [event for line in complete.split(b"\n") if (event := _parse(line)) is not None]


def history(events: Iterable[Event]) -> dict[str, dict[int, float]]:
    """Return metric → epoch → value, epochs ascending; the later line of a repeated epoch wins."""
    last = {event["epoch"]: event["metrics"] for event in events if event["event"] == "epoch"}
    curves: dict[str, dict[int, float]] = {}
    for epoch in sorted(last):
        for metric, value in last[epoch].items():
            curves.setdefault(metric, {})[epoch] = value
    return curves


def status(events: Iterable[Event]) -> Status:
    """Return the status of a trial: PENDING before its start, RUNNING until its end.

    A trial whose writer was killed is RUNNING too.
    """
    found: Status = "PENDING"
    for event in events:
        if event["event"] == "start":
            found = "RUNNING"
        elif event["event"] == "end":
            found = event["status"]
    return found


def _parse(line: bytes) -> Event | None:
    """Return the event of a line; None if the line is unfinished, lacks a field or has an odd value."""
    try:
        event = parse_json(line)
        if any(name not in event for name in ("event", "time", *_REQUIRED.get(event["event"], ()))):
            return None
        if event["event"] == "epoch":
            event["metrics"] = {name: float(value) for name, value in event["metrics"].items()}
        odd = event["event"] == "end" and event["status"] not in get_args(Status)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):  # a partial character, too
        return None
    return None if odd or not all(map(_fits, event.items())) else dict(event)


def _fits(entry: tuple[str, object]) -> bool:
    """Return whether a field has a value of its kind; fields that nothing computes with may have any."""
    name, value = entry
    if name in _NUMBERS and (value is not None or name in {"time", "epoch"}):
        kinds = int if name == "epoch" else int | float
        return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < _LARGEST
    return isinstance(value, str) or name not in {"event", "file", "status"}


def _write_error(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path}: the journal cannot be written ({error.strerror}): make room or choose another folder",
        code="MIM-L007",
    )
