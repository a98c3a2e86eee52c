"""Upload the journals of trials to their runs, each line once.

The journal is the truth. An uploader reads what was appended since its last call, sends the metrics of all
new epochs in one call, and advances only after the store accepted them, so an outage loses nothing. A new
uploader first reads what the run has: epochs that a resumed trial repeats are not logged twice (MLflow
appends metrics, it does not replace them), and an old journal can be uploaded later.
"""

import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mimetic.errors import RunError
from mimetic.files import is_inside, open_regular
from mimetic.journal import Event, Follower
from mimetic.metrics import metric as metric_of
from mimetic.tracking.log import (
    METRIC_LIMIT,
    batches,
    clean_key,
    log_picture,
    log_points,
    logged_pictures,
    set_tags,
)
from mimetic.tracking.runs import REASON, end_run
from mimetic.tracking.store import Store, store_errors

NOTE = "mimetic.note"
REUSED = "mimetic.reused"
COMPILE_SECONDS = "mimetic.compile.first_step_seconds"
TIME_SHARE = 0.005
"""Share of the wall time that uploads may take."""
LONGEST_PAUSE = 30.0
"""Seconds between two rounds at most, so that the UI stays current."""
LONGEST_BACKOFF = 600.0
BEST = "best/"
"""Before the name of a metric: its best value over the epochs of a finished trial."""
_START_TAGS = (
    "plan",
    "device",
    "precision",
    "compile",
    "no_decay",
    "resumed_from_epoch",
)


@dataclass(slots=True)
class _StoredRun:
    """What the store has of a run; the defaults are those of a run that was just created."""

    epoch: int = -1
    status: str = "SCHEDULED"
    pictures: set[tuple[str, int]] = field(default_factory=set)
    has_reason: bool = False
    best: float | None = None

    def has_all(self, events: Sequence[Event]) -> bool:
        """Return whether the store has a finished trial in full: artifacts were uploaded before its end."""
        ended = next((event["status"] for event in reversed(events) if event["event"] == "end"), None)
        last = max((event["epoch"] for event in events if event["event"] == "epoch"), default=-1)
        return self.status == ended == "FINISHED" and last <= self.epoch


Create = Callable[[float | None], str]
"""Creates a run from the time at which its trial started, None if it never did, and returns its id."""


class JournalUploader:
    """Uploads one journal to one run.

    The journal need not exist yet. A run that does not exist yet is given as the function that creates it,
    when the trial has started: MLflow cannot change the start of a run. The best value of `metric` is logged
    when the trial has finished, at the epoch that reached it.
    """

    def __init__(
        self, store: Store, run: str | Create, journal: str | os.PathLike[str], *, metric: str | None = None
    ) -> None:
        self.store, self.journal = store, Path(journal)
        self._run, self._metric = run, metric
        self._best: tuple[float, int] | None = None  # value and epoch
        self._follower = Follower(journal)
        self._stored: _StoredRun | None = None
        self._epoch = 0

    @property
    def run_id(self) -> str:
        """Return the id of the run, once it exists."""
        assert isinstance(self._run, str)
        return self._run

    def _create(self, started: float | None) -> None:
        """Create the run unless it exists."""
        if not isinstance(self._run, str):
            self._run, self._stored = self._run(started), _StoredRun()

    def upload(self) -> list[str]:
        """Upload what was appended since the last call, and return notes, e.g. on missing artifacts.

        Raises:
            RunError: If the store does not accept it; the next call tries the same lines again.
        """
        offset = self._follower.offset
        events = self._follower.new()
        if not events:
            return []
        try:
            self.store.check()
            with store_errors(self.store.uri):
                self._create(next((e["time"] for e in events if e["event"] == "start"), events[0]["time"]))
                stored = self._read_stored()
                return [] if stored.has_all(events) else self._send(events, stored)
        except RunError:
            self._follower.offset = offset
            raise

    def end(self, reason: str) -> None:
        """End the run as KILLED if it is still open: its trial never started, or its end was lost.

        Raises:
            RunError: If the store does not accept it.
        """
        self.store.check()
        with store_errors(self.store.uri):
            self._create(None)
            stored = self._read_stored()
        if stored.status in {"RUNNING", "SCHEDULED"}:
            end_run(self.store, self.run_id, "KILLED", reason=reason)
            stored.status = "KILLED"

    def _read_stored(self) -> _StoredRun:
        if self._stored is None:
            client = self.store.client
            run = client.get_run(self.run_id)
            points = (p for key in run.data.metrics for p in client.get_metric_history(self.run_id, key))
            self._stored = _StoredRun(
                epoch=max((point.step for point in points), default=-1),
                status=run.info.status,
                pictures=logged_pictures(self.store, self.run_id),
                has_reason=REASON in run.data.tags,
                best=run.data.metrics.get(f"{BEST}{self._metric}"),
            )
        return self._stored

    def _send(self, events: Sequence[Event], stored: _StoredRun) -> list[str]:
        """Send metrics and tags in one call, then files, then the status, which marks the run as complete."""
        tags = _tags(events)
        if tags.get(REASON) == "" and not stored.has_reason:
            del tags[REASON]  # nothing to clear
        self._log_epochs([event for event in events if event["event"] == "epoch"], tags, stored)
        notes: list[str] = []
        status, end_time = stored.status, None
        for event in events:
            match event["event"]:
                case "start":
                    status, end_time = "RUNNING", None
                case "epoch":
                    self._epoch = max(self._epoch, event["epoch"])
                    self._note_best(event)
                case "artifact":
                    notes += self._log_artifact(event, stored)
                case "end":
                    status, end_time = event["status"], event["time"]
        if status != stored.status:
            if status == "RUNNING":
                self.store.client.update_run(self.run_id, status="RUNNING")
            else:
                stamp = None if end_time is None else int(end_time * 1000)
                if status == "FINISHED":
                    self._log_best(stored, stamp or 0)
                self.store.client.set_terminated(self.run_id, status, end_time=stamp)
            stored.status = status
        return notes

    def _note_best(self, event: Event) -> None:
        value = event["metrics"].get(self._metric)
        if self._metric is None or value is None or not math.isfinite(value):
            return
        sign = 1.0 if metric_of(self._metric).higher_is_better else -1.0
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, event["epoch"])

    def _log_best(self, stored: _StoredRun, time_ms: int) -> None:
        from mlflow.entities import Metric

        if self._best is None or stored.best == self._best[0]:
            return
        value, epoch = self._best
        point = Metric(clean_key(f"{BEST}{self._metric}"), value, time_ms, epoch)
        log_points(self.store, self.run_id, [point], tags={})
        stored.best = value

    def _log_epochs(self, epochs: Sequence[Event], tags: dict[str, str], stored: _StoredRun) -> None:
        """Log tags, and metrics of epochs the store does not have; MLflow's step is the epoch."""
        from mlflow.entities import Metric

        points: list[Metric] = []
        unsent = dict(tags)

        def send() -> None:
            """Send whole epochs: a later uploader could not complete one that is stored in part."""
            for batch in batches(points, METRIC_LIMIT):
                log_points(self.store, self.run_id, batch, tags=unsent)
                unsent.clear()
            stored.epoch = max([stored.epoch, *(point.step for point in points)])
            points.clear()

        for event in epochs:
            if event["epoch"] > max([stored.epoch, *(point.step for point in points[-1:])]):
                if len(points) + len(event["metrics"]) > METRIC_LIMIT:
                    send()
                stamp = int(event["time"] * 1000)
                points += [Metric(k, v, stamp, event["epoch"]) for k, v in event["metrics"].items()]
        send()
        set_tags(self.store, self.run_id, unsent)
        stored.has_reason = stored.has_reason or REASON in tags

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
        self.store.client.log_artifact(self.run_id, str(path), None if folder == "." else folder)
        if event.get("kind") == "picture":
            return log_picture(self.store, self.run_id, path, epoch=self._epoch, logged=stored.pictures)
        return []


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

    def add(self, store: Store, run: str | Create, journal: str | os.PathLike[str]) -> None:
        """Upload one more journal, to a run that exists or is created when its trial has started."""
        self.uploaders.append(JournalUploader(store, run, journal, metric=self._metric))

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
