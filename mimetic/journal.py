"""The journal of a trial: one JSON object per line, appended as things happen.

The journal is the truth about a trial: a tracking store mirrors it and can be filled from it later. Each
event is one `write` of one line, so a reader never waits for a writer, and `kill -9` or a full disk costs
at most the line being written. A resumed trial appends to the same file and repeats the epochs after its
checkpoint: the later line wins.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from mimetic.errors import RunError

Event = dict[str, Any]
Status = Literal["PENDING", "RUNNING", "FINISHED", "FAILED", "KILLED"]

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "epoch": ("epoch", "metrics"),
    "artifact": ("file",),
    "end": ("status",),
    "initialize": ("done", "total"),
}
_SYNCED = frozenset({"start", "epoch", "checkpoint", "end"})


class JournalError(RunError):
    """A journal takes nothing more, e.g. on a full disk."""


class Journal:
    """Append events to a trial's journal; its folder is made if it is missing.

    Events that must survive a power cut (start, epoch, checkpoint, end) are synced to the disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._end_torn_line()
        except OSError as error:
            raise _not_written(self.path, error) from error

    def write(self, event: str, /, **fields: object) -> None:
        """Append one event with the time of now, in seconds since 1970.

        Args:
            event: What happened: start, epoch, progress, checkpoint, artifact or end.
            fields: Values JSON can hold; numbers that are not finite are written as strings.

        Raises:
            JournalError: If the line cannot be written, e.g. on a full disk.
        """
        entry = _plain({"event": event, "time": round(time.time(), 3), **fields})
        rest = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            while rest:  # one write does it, but for a disk that fills up
                rest = rest[os.write(self._file, rest) :]
            if event in _SYNCED:
                os.fsync(self._file)
        except OSError as error:
            raise _not_written(self.path, error) from error

    def close(self) -> None:
        """Close the file; a closed journal is not written again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_torn_line(self) -> None:
        """End a line that a killed writer left unfinished, so that ours starts on a line of its own."""
        size = os.fstat(self._file).st_size
        if size > 0 and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


class NullJournal:
    """Stands for the journal in processes beside the one that writes it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def write(self, event: str, /, **fields: object) -> None:
        """Write nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def read_journal(path: str | os.PathLike[str]) -> list[Event]:
    """Return a journal's events in order; a missing journal has none.

    Lines a killed writer left unfinished are skipped. Metrics that are not finite come back as floats.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [event for line in lines if (event := _parse(line)) is not None]


class Follower:
    """Reads a journal that grows: each call of `new` returns the events appended since the last.

    Attributes:
        path: The journal; it need not exist yet.
        offset: Bytes read so far; set it back to read events again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.offset = 0

    def new(self) -> list[Event]:
        """Return the events of whole lines since the last call; a line still being written waits."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self.offset += len(whole) + len(newline)
        return [event for line in whole.split(b"\n") if (event := _parse(line)) is not None]


def history(events: Iterable[Event]) -> dict[str, dict[int, float]]:
    """Return metric → epoch → value, epochs ascending; of an epoch written twice the later one."""
    last = {event["epoch"]: event["metrics"] for event in events if event["event"] == "epoch"}
    curves: dict[str, dict[int, float]] = {}
    for epoch in sorted(last):
        for metric, value in last[epoch].items():
            curves.setdefault(metric, {})[epoch] = value
    return curves


def last_metrics(events: Iterable[Event]) -> dict[str, float]:
    """Return each metric's value at the last epoch that has it."""
    return {metric: curve[max(curve)] for metric, curve in history(events).items()}


def status(events: Iterable[Event]) -> Status:
    """Return how a trial stands: PENDING before its start, RUNNING until its end.

    A journal cannot know that its writer was killed: such a trial reads RUNNING.
    """
    answer: Status = "PENDING"
    for event in events:
        if event["event"] == "start":
            answer = "RUNNING"
        elif event["event"] == "end":
            answer = event["status"]
    return answer


def _parse(line: bytes) -> Event | None:
    """Return the event of a line; None for one a killed writer left unfinished, or that lacks a field."""
    try:
        event = json.loads(line)
        if any(name not in event for name in ("event", "time", *_NEEDED.get(event["event"], ()))):
            return None
        if event["event"] == "epoch":
            event["metrics"] = {name: float(value) for name, value in event["metrics"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):  # also text cut inside a character
        return None
    return dict(event)


def _plain(value: object) -> object:
    """Return the value with numbers that JSON has no word for as the strings nan, inf and -inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _not_written(path: Path, error: OSError) -> JournalError:
    reason = error.strerror
    return JournalError(
        f"{path}: the journal cannot be written ({reason}): make room or choose another folder"
    )
