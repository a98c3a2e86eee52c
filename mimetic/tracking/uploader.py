"""Upload the journals of trials to their runs, each line once.

The journal is the truth. An uploader reads what was appended since its last call, sends the metrics of all
new epochs in one call, and advances only after the store accepted them, so an outage loses nothing. A new
uploader first reads what the run has: epochs that a resumed trial repeats are not logged twice (MLflow
appends metrics, it does not replace them), and an old journal can be uploaded later.
"""

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mimetic.errors import RunError
from mimetic.files import is_inside, open_regular
from mimetic.journal import Event, Follower, Status
from mimetic.metrics import metric as metric_of
from mimetic.tracking.log import (
    METRIC_LIMIT,
    ArtifactAddress,
    batches,
    clean_key,
    log_files,
    log_picture,
    log_points,
    logged_pictures,
)
from mimetic.tracking.runs import ACTIVE, REASON, StartedRun, end_run
from mimetic.tracking.store import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

NOTE = "mimetic.note"
REUSED = "mimetic.reused"
COMPILE_SECONDS = "mimetic.compile.first_step_seconds"
TIME_SHARE = 0.005
"""Share of the wall time that uploads may take."""
LONGEST_PAUSE = 30.0
"""Seconds between two rounds at most, to keep the UI current."""
LONGEST_BACKOFF = 600.0
BEST = "best/"
"""Before the name of a metric: its best value over the epochs of a finished trial."""
_START_TAGS = ("plan", "device", "precision", "compile", "no_decay", "resumed_from_epoch")


@dataclass(slots=True)
class _StoredRun:
    """What the store has of a run, and the params it lacks; the defaults are those of a run just created."""

    artifacts: ArtifactAddress
    tags: Mapping[str, str]
    missing_params: Mapping[str, str] = field(default_factory=dict)
    status: str = "RUNNING"
    metrics: dict[str, float] = field(default_factory=dict)
    epoch: int = -1
    pictures: set[tuple[str, int]] = field(default_factory=set)
    is_read: bool = True
    """Whether `epoch` and `pictures` are known."""

    @classmethod
    def of(cls, run: "Run") -> Self:
        """Return what is known of a run that existed before."""
        info, data = run.info, run.data
        return cls(
            ArtifactAddress(info.artifact_uri),
            data.tags,
            status=info.status,
            metrics=data.metrics,
            is_read=False,
        )


Create = Callable[[float | None, Mapping[str, str]], StartedRun]
"""Creates a run with tags from the time at which its trial started, None if it never did."""


class JournalUploader:
    """Uploads one journal to one run.

    The journal need not exist yet. A run that does not exist yet is given as the function that creates it,
    when the trial has started: MLflow cannot change the start of a run. The best value of `metric` is logged
    when the trial has finished, at the epoch that reached it. Of a run that has finished, `ended` is the time
    of its end in milliseconds, which is uploaded last: a journal with the same end is uploaded already.

    Each of MLflow's calls takes 10 to 20 ms of the processor. So tags that are known are set when the run is
    created, and its params, metrics and best value are logged in one call.
    """

    def __init__(
        self,
        store: Store,
        run: str | Create,
        journal: str | os.PathLike[str],
        *,
        metric: str | None = None,
        ended: int | None = None,
    ) -> None:
        self.store, self.journal = store, Path(journal)
        self._run, self._metric, self._ended = run, metric, ended
        self._best: tuple[float, int] | None = None  # value and epoch
        self._follower = Follower(journal)
        self._stored: _StoredRun | None = None
        self._epoch = 0

    @property
    def run_id(self) -> str:
        """Return the id of the run, once it exists."""
        assert isinstance(self._run, str)
        return self._run

    def upload(self) -> list[str]:
        """Upload what was appended since the last call, and return notes, e.g. on missing artifacts.

        Raises:
            RunError: If the store does not accept it; the next call tries the same lines again.
        """
        offset = self._follower.offset
        events = self._follower.new()
        if not events or (self._stored is None and _ending(events) == ("FINISHED", self._ended)):
            return []
        try:
            self.store.check()
            with store_errors(self.store.uri):
                started = next((e["time"] for e in events if e["event"] == "start"), events[0]["time"])
                return self._send(events, self._open(started, _tags(events)))
        except RunError:
            self._follower.offset = offset
            raise

    def end(self, reason: str) -> None:
        """End the run as KILLED if it is still open: its trial never started, or its end was lost.

        Raises:
            RunError: If the store does not accept it.
        """
        is_over = self._ended is not None if self._stored is None else self._stored.status not in ACTIVE
        if is_over:
            return
        self.store.check()
        with store_errors(self.store.uri):
            stored = self._open(None, {REASON: reason})
            if stored.status in ACTIVE:
                self._log([], {REASON: reason}, stored)
                end_run(self.store, self.run_id, "KILLED")
                stored.status = "KILLED"

    def _open(self, started: float | None, tags: Mapping[str, str]) -> _StoredRun:
        """Return what the store has of the run, which is created unless it exists."""
        if self._stored is None:
            if isinstance(self._run, str):
                self._stored = _StoredRun.of(self.store.client.get_run(self._run))
            else:
                known = {key: value for key, value in tags.items() if value}
                run = self._run(started, known)
                self._run, self._stored = run.id, _StoredRun(run.artifacts, known, run.params)
        return self._stored

    def _send(self, events: Sequence[Event], stored: _StoredRun) -> list[str]:
        """Send metrics and tags in one call, then files, then the status, which marks the run as complete."""
        self._read_history(stored)
        status, end_time = _ending(events)
        self._log_epochs(events, stored, best_at=end_time if status == "FINISHED" else None)
        notes: list[str] = []
        for event in events:
            if event["event"] == "epoch":
                self._epoch = max(self._epoch, event["epoch"])
            elif event["event"] == "artifact":
                notes += self._log_artifact(event, stored)
        if status not in {None, stored.status}:
            if status == "RUNNING":
                self.store.client.update_run(self.run_id, status="RUNNING")
            else:
                self.store.client.set_terminated(self.run_id, status, end_time=end_time)
            stored.status = status
        return notes

    def _read_history(self, stored: _StoredRun) -> None:
        """Read which epochs and pictures a run has that existed before."""
        if stored.is_read:
            return
        client = self.store.client
        points = (point for key in stored.metrics for point in client.get_metric_history(self.run_id, key))
        stored.epoch = max((point.step for point in points), default=-1)
        stored.pictures = logged_pictures(self.store, stored.artifacts)
        stored.is_read = True

    def _log_epochs(self, events: Sequence[Event], stored: _StoredRun, *, best_at: int | None) -> None:
        """Log tags, metrics of epochs the store does not have, and with a time for it the best value.

        MLflow's step is the epoch. Whole epochs are sent: a later uploader could not complete one that is
        stored in part.
        """
        from mlflow.entities import Metric

        points: list[Metric] = []
        tags, latest = _tags(events), stored.epoch
        for event in [event for event in events if event["event"] == "epoch"]:
            self._note_best(event)
            if event["epoch"] <= latest:  # repeated by a trial that was resumed
                continue
            if len(points) + len(event["metrics"]) > METRIC_LIMIT:
                self._log(points, tags, stored)
                points = []
            latest, stamp = event["epoch"], _milliseconds(event["time"])
            points += [Metric(k, v, stamp, latest) for k, v in event["metrics"].items()]
        key = clean_key(f"{BEST}{self._metric}")
        if best_at is not None and self._best is not None and stored.metrics.get(key) != self._best[0]:
            points.append(Metric(key, self._best[0], best_at, self._best[1]))
        self._log(points, tags, stored)

    def _log(self, points: Sequence["Metric"], tags: Mapping[str, str], stored: _StoredRun) -> None:
        """Log points, tags that differ from the stored ones, and the params of a run just created."""
        new = {key: value for key, value in tags.items() if stored.tags.get(key, "") != value}
        for batch in [*batches(points, METRIC_LIMIT)] or [[]]:  # tags and params are sent without points, too
            log_points(self.store, self.run_id, batch, params=stored.missing_params, tags=new)
            stored.tags, stored.missing_params, new = {**stored.tags, **new}, {}, {}
            stored.epoch = max([stored.epoch, *(point.step for point in batch)])
            stored.metrics |= {point.key: point.value for point in batch if point.key.startswith(BEST)}

    def _note_best(self, event: Event) -> None:
        value = event["metrics"].get(self._metric)
        if self._metric is None or value is None or not math.isfinite(value):
            return
        sign = 1.0 if metric_of(self._metric).higher_is_better else -1.0
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, event["epoch"])

    def _log_artifact(self, event: Event, stored: _StoredRun) -> list[str]:
        name = str(event["file"])
        path = self.journal.parent / name
        if not is_inside(path, self.journal.parent):
            return [f"{path} is in the journal, but outside the trial: not uploaded"]
        try:
            open_regular(path).close()
        except OSError as error:
            reason = str(error.strerror).lower()
            return [f"{path} is in the journal, but {reason}: not uploaded"]
        folder = Path(name).parent.as_posix()
        log_files(self.store, stored.artifacts, [path], folder="" if folder == "." else folder)
        if event.get("kind") == "picture":
            return log_picture(self.store, self.run_id, path, epoch=self._epoch, logged=stored.pictures)
        return []


def _ending(events: Sequence[Event]) -> tuple[Status | None, int | None]:
    """Return the status after some events, None if they do not change it, and the time of the end in ms."""
    last = next((event for event in reversed(events) if event["event"] in {"start", "end"}), None)
    if last is None or last["event"] == "start":
        return (None if last is None else "RUNNING"), None
    return last["status"], _milliseconds(last["time"])


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _tags(events: Sequence[Event]) -> dict[str, str]:
    """Return the tags of a run from its events; a resumed trial clears the reason of its last end."""
    tags: dict[str, str] = {}
    for event in events:
        match event["event"]:
            case "start":
                present = [name for name in _START_TAGS if event.get(name) is not None]
                tags |= {f"mimetic.{name}": str(event[name]) for name in present}
            case "compiled":
                tags[COMPILE_SECONDS] = f"{event['first_step_seconds']:.3g}"
            case "note":
                tags[NOTE] = str(event.get("text", ""))
            case "reused":
                tags[REUSED] = f"{event['study']}/{event['trial']}"
            case "end":
                tags[REASON] = str(event["reason"]) if event.get("reason") else ""
    return tags


class StudyUploader:
    """Uploads all journals of a study, in rounds that take a small share of the time.

    After a round the store is left alone for 1/`TIME_SHARE` times as long as the round took, at most for
    `LONGEST_PAUSE` seconds. A store that fails is left alone for a growing time, so training does not wait
    for it. The error and its end are reported once.

    Rounds start at least `interval` seconds apart. A failing store is left alone for `backoff` seconds at
    first, doubled up to ten minutes. `clock` is monotonic. `metric` is what the study compares its arms by.
    """

    def __init__(
        self,
        *,
        interval: float = 1.0,
        backoff: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        metric: str | None = None,
    ) -> None:
        self.uploaders: list[JournalUploader] = []
        self.error: str | None = None
        self._metric = metric
        self._interval, self._first_backoff, self._backoff, self._clock = interval, backoff, backoff, clock
        self._next = float("-inf")

    def add(
        self, store: Store, run: str | Create, journal: str | os.PathLike[str], *, ended: int | None = None
    ) -> None:
        """Upload one more journal, to a run that exists or is created when its trial has started."""
        self.uploaders.append(JournalUploader(store, run, journal, metric=self._metric, ended=ended))

    def leave_out(self, journals: Collection[Path]) -> None:
        """Upload these journals no more: their trials will not be trained."""
        self.uploaders = [uploader for uploader in self.uploaders if uploader.journal not in journals]

    def upload(self, *, now: bool = False) -> list[str]:
        """Upload what is new in all journals if it is time, and return messages for the user.

        A failing store does not raise. `now` uploads regardless of the time, as at the end of a study.
        """
        if not now and self._clock() < self._next:
            return []
        messages: list[str] = []
        started = self._clock()
        for uploader in list(self.uploaders):
            try:
                messages += uploader.upload()
            except RunError as error:
                # retry it last: an error of one run must not block the others
                self.uploaders.remove(uploader)
                self.uploaders.append(uploader)
                return messages + self._back_off(error)
        ended = self._clock()
        self._next = ended + max(self._interval, min((ended - started) / TIME_SHARE, LONGEST_PAUSE))
        if self.error is not None:
            self.error, self._backoff = None, self._first_backoff
            messages.append("tracking store reachable again; backlog uploaded")
        return messages

    def finish(self, reason: str) -> list[str]:
        """Upload the rest, end runs that are still open as KILLED, and return messages for the user."""
        messages = self.upload(now=True)
        if self.error is not None:
            return messages
        try:
            for uploader in self.uploaders:
                uploader.end(reason)
        except RunError as error:
            messages += self._back_off(error)
        return messages

    def _back_off(self, error: RunError) -> list[str]:
        is_first = self.error is None
        self.error = str(error)
        self._next = self._clock() + self._backoff
        self._backoff = min(2 * self._backoff, LONGEST_BACKOFF)
        return [f"{error}. Training continues, and the journals keep the backlog"] if is_first else []
