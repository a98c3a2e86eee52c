"""What trains the trials of a study: the seam between a study and the ways to execute it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from mimetic.study.layout import Trial

Tick = Callable[[], None]
"""Lets the display and the tracker take in what is new; called a few times a second."""


class Executor(Protocol):
    """Trains trials until all have ended or it is told to stop."""

    def run(self, waves: Sequence[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial of a wave, then those of the next, which take from what is trained by then.

        An exception out of `tick`, Ctrl-C among them, stops all within a step.
        """
