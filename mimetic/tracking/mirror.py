"""Mirrors: a trial's journal copied into its run, each line once.

The journal stays the truth. A mirror reads what was appended since its last look, sends the metrics of
all new epochs in one call, and remembers how far it came only after the store took it, so a store that is
away for a while loses nothing. A fresh mirror asks the store what it already has: epochs a resumed
trial repeats are never logged twice (MLflow appends, it does not replace), and an old journal can be
mirrored later.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mimetic.errors import RunError
from mimetic.journal import Event, Follower
from mimetic.tracking.log import log_points, set_tags
from mimetic.tracking.pictures import log_picture, logged_pictures
from mimetic.tracking.runs import REASON, end_run
from mimetic.tracking.store import Store
from mimetic.tracking.trouble import store_trouble
from mimetic.tracking.values import METRIC_LIMIT, batches

NOTE = "mimetic.note"
COMPILED = "mimetic.compile.first_step_seconds"
SHARE = 0.005
"""How much of the time rounds may take."""
SLOWEST = 30.0
"""Seconds between two rounds at most, so that the interface stays alive."""
_OPEN = ("RUNNING", "SCHEDULED")
_FACTS = ("plan", "device", "threads", "precision", "compile", "ranks", "torch", "resumed_from_epoch")


class Mirror:
    """Copies one journal into one run.

    Args:
        store: The open store.
        run_id: The trial's run.
        journal: Path of its journal; it need not exist yet.
        fresh: Whether the run was made just now, so that the store need not be asked what it has.
    """

    def __init__(
        self, store: Store, run_id: str, journal: str | os.PathLike[str], *, fresh: bool = False
    ) -> None:
        self.store, self.run_id, self.journal = store, run_id, Path(journal)
        self._follower = Follower(journal)
        self._known = _Known(-1, "SCHEDULED", set(), has_reason=False) if fresh else None
        self._epoch = 0

    def pump(self) -> list[str]:
        """Copy what was appended since the last call, and return notes, e.g. on missing artifacts.

        Raises:
            RunError: If the store does not take it; the same lines are tried again by the next call.
        """
        before = self._follower.offset
        events = self._follower.new()
        if not events:
            return []
        try:
            self.store.check()
            with store_trouble(self.store.uri):
                if self._known is None:
                    self._known = _Known.ask(self.store, self.run_id)
                return [] if self._known.has_all(events) else self._copy(events, self._known)
        except RunError:
            self._follower.offset = before
            raise

    def end(self, reason: str) -> None:
        """End the run as KILLED if nothing has ended it: its trial never started, or its end is lost.

        Raises:
            RunError: If the store does not take it.
        """
        self.store.check()
        with store_trouble(self.store.uri):
            if self._known is None:
                self._known = _Known.ask(self.store, self.run_id)
            open_still = self._known.status in _OPEN
        if open_still:
            end_run(self.store, self.run_id, "KILLED", reason=reason)
            self._known.status = "KILLED"

    def _copy(self, events: list[Event], known: "_Known") -> list[str]:
        """Send figures and tags in one call, then files, then the status, which says that all is there."""
        self._log([event for event in events if event["event"] == "epoch"], _tags(events, known), known)
        notes: list[str] = []
        status, ended = known.status, None
        for event in events:
            match event["event"]:
                case "start":
                    status, ended = "RUNNING", None
                case "epoch":
                    self._epoch = max(self._epoch, event["epoch"])
                case "artifact":
                    notes += self._log_artifact(event, known)
                case "end":
                    status, ended = event["status"], event["time"]
        self._set_status(status, ended, known)
        return notes

    def _log(self, epochs: Iterable[Event], tags: dict[str, str], known: "_Known") -> None:
        """Send tags, and the metrics of epochs the store does not have; the step is the epoch in all arms."""
        from mlflow.entities import Metric

        points: list[Metric] = []
        unsent = dict(tags)

        def send() -> None:
            """Send whole epochs: of one whose points were cut in two, a later mirror could not tell."""
            for batch in batches(points, METRIC_LIMIT):
                log_points(self.store, self.run_id, batch, tags=unsent)
                unsent.clear()
            known.epoch = max([known.epoch, *(point.step for point in points)])
            points.clear()

        for event in epochs:
            if event["epoch"] > max([known.epoch, *(point.step for point in points[-1:])]):
                if len(points) + len(event["metrics"]) > METRIC_LIMIT:
                    send()
                stamp = int(event["time"] * 1000)
                points += [Metric(k, v, stamp, event["epoch"]) for k, v in event["metrics"].items()]
        send()
        set_tags(self.store, self.run_id, unsent)
        known.has_reason = known.has_reason or REASON in tags

    def _log_artifact(self, event: Event, known: "_Known") -> list[str]:
        name = str(event["file"])
        path = self.journal.parent / name
        trouble = _unreadable(path)
        if trouble is not None:
            return [f"{path} is in the journal, but {trouble}: not uploaded"]
        place = Path(name).parent.as_posix()
        self.store.client.log_artifact(self.run_id, str(path), None if place == "." else place)
        if event.get("kind") == "picture":
            return log_picture(self.store, self.run_id, path, epoch=self._epoch, logged=known.pictures)
        return []

    def _set_status(self, status: str, ended: float | None, known: "_Known") -> None:
        if status == known.status:
            return
        if status == "RUNNING":
            self.store.client.update_run(self.run_id, status="RUNNING")
        else:
            stamp = None if ended is None else int(ended * 1000)
            self.store.client.set_terminated(self.run_id, status, end_time=stamp)
        known.status = status


class Mirrors:
    """All mirrors of a study, pumped together and at most once in a while.

    After a round the store is left alone for 200 times as long as it took, at most for `SLOWEST` seconds:
    so mirroring takes half a hundredth of the time, however many trials there are. A store that fails is
    left alone for a growing while, so that training is not held up by waiting for it; the trouble is
    told once, and its end too.

    Args:
        every: Seconds between two rounds at least.
        pause: Seconds a failing store is left alone at first, doubled up to ten minutes.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, *, every: float = 1.0, pause: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.mirrors: list[Mirror] = []
        self.trouble: str | None = None
        self._every, self._first_pause, self._pause, self._clock = every, pause, pause, clock
        self._next = float("-inf")

    def add(self, store: Store, run_id: str, journal: str | os.PathLike[str], *, fresh: bool = False) -> None:
        """Mirror one more journal, into a run that was made just now or may hold something already."""
        self.mirrors.append(Mirror(store, run_id, journal, fresh=fresh))

    def pump(self, *, now: bool = False) -> list[str]:
        """Copy what is new in all journals if it is time, and return what the user should read.

        Never raises for a store that fails. `now` copies whatever the time, as at the end of a study.
        """
        if not now and self._clock() < self._next:
            return []
        said: list[str] = []
        began = self._clock()
        for mirror in list(self.mirrors):
            try:
                said += mirror.pump()
            except RunError as error:
                self.mirrors.remove(
                    mirror
                )  # to the end: what fails for one alone must not hold up the others
                self.mirrors.append(mirror)
                return said + self._failed(error)
        ended = self._clock()
        self._next = ended + max(self._every, min((ended - began) / SHARE, SLOWEST))
        if self.trouble is not None:
            self.trouble, self._pause = None, self._first_pause
            said.append("tracking works again; nothing was lost")
        return said

    def finish(self, reason: str) -> list[str]:
        """Copy what is left, end runs that nothing ended as KILLED, and return what the user should read."""
        said = self.pump(now=True)
        if self.trouble is not None:
            return said
        try:
            for mirror in self.mirrors:
                mirror.end(reason)
        except RunError as error:
            said += self._failed(error)
        return said

    def _failed(self, error: RunError) -> list[str]:
        new = self.trouble is None
        self.trouble = str(error)
        self._next = self._clock() + self._pause
        self._pause = min(2 * self._pause, 600.0)
        return [f"{error}. Training goes on, and the journals keep what is not mirrored yet"] if new else []


class _Known:
    """What the store already has of a run."""

    def __init__(self, epoch: int, status: str, pictures: set[tuple[str, int]], *, has_reason: bool) -> None:
        self.epoch, self.status, self.pictures, self.has_reason = epoch, status, pictures, has_reason

    def has_all(self, events: Sequence[Event]) -> bool:
        """Tell whether the store holds a finished trial in full: artifacts were uploaded before its end."""
        ended = next((event["status"] for event in reversed(events) if event["event"] == "end"), None)
        last = max((event["epoch"] for event in events if event["event"] == "epoch"), default=-1)
        return self.status == ended == "FINISHED" and last <= self.epoch

    @classmethod
    def ask(cls, store: Store, run_id: str) -> "_Known":
        run = store.client.get_run(run_id)
        steps = (p.step for key in run.data.metrics for p in store.client.get_metric_history(run_id, key))
        pictures = logged_pictures(store, run_id)
        return cls(max(steps, default=-1), run.info.status, pictures, has_reason=REASON in run.data.tags)


def _tags(events: Sequence[Event], known: _Known) -> dict[str, str]:
    """Return what events say of the whole run."""
    tags: dict[str, str] = {}
    for event in events:
        match event["event"]:
            case "start":
                tags |= {
                    f"mimetic.{name}": str(event[name]) for name in _FACTS if event.get(name) is not None
                }
            case "compiled":
                tags[COMPILED] = f"{event['first_step_seconds']:.3g}"
            case "note":
                tags[NOTE] = str(event.get("text", ""))
            case "end":
                tags[REASON] = str(event["reason"]) if event.get("reason") else ""
    if tags.get(REASON) == "" and not known.has_reason:
        del tags[REASON]
    return tags


def _unreadable(path: Path) -> str | None:
    """Return why a file cannot be read, None if it can."""
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return str(error.strerror).lower()
