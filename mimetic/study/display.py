"""Show the progress of a study; the command line draws it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mimetic.journal import Event
from mimetic.study.layout import Trial


class Display(Protocol):
    """Shows what happens to the trials of a study."""

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Show the trials about to run."""

    def update(self, trial: Trial, events: Sequence[Event]) -> None:
        """Show new events of a trial's journal."""

    def message(self, text: str) -> None:
        """Show a message to the user."""


class NullDisplay:
    """Shows nothing."""

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Show nothing."""

    def update(self, trial: Trial, events: Sequence[Event]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""
