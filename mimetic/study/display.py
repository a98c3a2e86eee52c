"""What a study tells while it runs; the command line draws it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mimetic.study.layout import Trial


class Display(Protocol):
    """Takes in what happens to the trials of a study."""

    def begin(self, study: Path, trials: Sequence[Trial]) -> None:
        """Take in the trials about to run."""

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in new events of a trial's journal."""

    def say(self, text: str) -> None:
        """Take in a message for the user."""


class NullDisplay:
    """A display that shows nothing."""

    def begin(self, study: Path, trials: Sequence[Trial]) -> None:
        """Show nothing."""

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""
