"""Show the progress of a study; the command line draws it."""

from collections.abc import Sequence
from pathlib import Path

from mimetic.journal import Event
from mimetic.study.layout import Trial


class Display:
    """Shows what happens to the trials of a study; the base shows nothing."""

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Show the trials about to run."""

    def update(self, trial: Trial, events: Sequence[Event]) -> None:
        """Show new events of a trial's journal."""

    def message(self, text: str) -> None:
        """Show a message to the user."""
