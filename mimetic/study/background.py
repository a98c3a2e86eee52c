"""A study's tracker, opened beside its trials: MLflow takes seconds to import and to make its runs."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mimetic.errors import RunError
from mimetic.recipe.recipe import Recipe
from mimetic.study.display import Display
from mimetic.study.layout import Trial

PATIENCE = 10.0
"""Seconds a study that failed waits for a tracker that is being opened."""


class BackgroundTracker:
    """A study's tracker, opened in a thread while workers start.

    So Ctrl-C finds no import of MLflow half-way, which could not be made again.

    Args:
        opening: Returns the tracker, or None where the study goes untracked.
    """

    def __init__(self, opening: Callable[[], Any]) -> None:
        self._tracker: Any = None
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._open, args=(opening,), daemon=True)
        self._thread.start()

    def _open(self, opening: Callable[[], Any]) -> None:
        try:
            self._tracker = opening()
        except BaseException as error:  # noqa: BLE001 - raised where the tracker is asked for
            self._trouble = error

    def wait(self) -> Any:
        """Wait for the tracker and return it; None where there is none, or the store does not work."""
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble
        return self._tracker

    def pump(self) -> None:
        """Send what the journals gained since the last call, once the tracker is open."""
        if not self._thread.is_alive() and self.wait() is not None:
            self._tracker.pump()

    def abandon(self, reason: str) -> None:
        """End every run that is open, if there are any: the study itself failed."""
        self._thread.join(PATIENCE)  # what it makes meanwhile would stay open
        if self._tracker is not None:
            self._tracker.abandon(reason)


def open_tracker(
    recipe: Recipe,
    folder: Path,
    trials: Sequence[Trial],
    stages: Sequence[Trial],
    *,
    root: Path,
    display: Display,
) -> Any:
    """Return the tracker of a study, or None if the store does not work, which is said."""
    from mimetic.study.tracker import LATER, Tracker

    try:
        return Tracker(recipe, folder, trials, root=root, display=display, stages=stages)
    except RunError as error:
        display.say(f"not tracked: {error}; {LATER}")
        return None
