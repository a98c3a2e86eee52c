"""Show the progress of a study; the command line and notebooks draw it."""

from collections.abc import Sequence
from pathlib import Path

from mimetic.journal import Event
from mimetic.metrics import metric
from mimetic.study.layout import Trial


class Display:
    """Shows what happens to the trials of a study; the base shows nothing."""

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Show the trials about to run."""

    def add(self, trials: Sequence[Trial]) -> None:
        """Show further trials that will run, of the next rung of a halving."""

    def update(self, trial: Trial, events: Sequence[Event]) -> None:
        """Show new events of a trial's journal."""

    def message(self, text: str) -> None:
        """Show a message to the user."""


def ending(trial: Trial, event: Event, name: str, value: float | None) -> str:
    """Return how a trial ended, with the value of the metric of that name if it finished with one."""
    seconds = event.get("seconds")
    took = f" in {seconds:.0f} s" if seconds is not None else ""
    result = ""
    if event["status"] == "FINISHED" and value is not None:
        result = f", {name} {metric(name).format(value)}"
    reason = f": {event['reason']}" if event.get("reason") else ""
    return f"{trial.name}: {event['status']}{took}{result}{reason}"
