"""Show and upload what the journals of a study gain while it runs."""

from collections import deque
from collections.abc import Iterable

from mimetic.journal import Follower
from mimetic.study.display import Display
from mimetic.study.layout import Trial
from mimetic.study.tracker import BackgroundTracker

WATCHED = 64
"""Maximum number of trials whose journals are read several times a second."""


class Ticker:
    """Shows and uploads new events of the journals, each time that it is called.

    Trials start about in the order in which they are followed: of those that have not started, only the first
    ones are read. Those that have ended are read no more.
    """

    def __init__(self, tracking: BackgroundTracker, display: Display) -> None:
        self.tracking, self.display = tracking, display
        self._waiting: deque[tuple[Trial, Follower]] = deque()
        self._running: list[tuple[Trial, Follower]] = []

    def follow(self, trials: Iterable[Trial]) -> None:
        """Follow the journals of further trials; events of earlier runs are skipped."""
        for trial in trials:
            self._waiting.append((trial, Follower(trial.journal)))
            self._waiting[-1][1].new()

    def __call__(self) -> None:
        """Show what is new."""
        for entry in tuple(self._running):
            self._show(entry)
        while self._waiting and len(self._running) < WATCHED:
            self._running.append(self._waiting.popleft())
            self._show(self._running[-1])
        self.tracking.sync()

    def _show(self, entry: tuple[Trial, Follower]) -> None:
        trial, follower = entry
        if events := follower.new():
            self.display.update(trial, events)
            if events[-1]["event"] == "end":
                self._running.remove(entry)
