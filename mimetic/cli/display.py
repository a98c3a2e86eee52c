"""The progress of a study in a terminal: a bar for the whole, a line for each trial that runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mimetic.study.layout import Trial


class Progress:
    """Draws what a study tells; on a pipe it prints one line for each trial that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._whole: TaskID | None = None
        self._tasks: dict[Trial, TaskID] = {}
        self._total: dict[Trial, int] = {}
        self._count = 0
        self._ended = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, study: Path, trials: Sequence[Trial]) -> None:
        """Take in the trials about to run."""
        self._count = len(trials)
        self._console.print(f"{study}: {len(trials)} trials to run")
        self._whole = self._bars.add_task("study", total=len(trials), note="trials")

    def update(self, trial: Trial, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in new events of a trial's journal."""
        for event in events:
            if event["event"] == "progress":
                self._advance(trial, event)
            elif event["event"] == "end":
                self._end(trial, event)

    def say(self, text: str) -> None:
        """Print a message above the bars."""
        self._console.print(text)

    def _advance(self, trial: Trial, event: Mapping[str, Any]) -> None:
        if trial not in self._tasks:
            self._tasks[trial] = self._bars.add_task(trial.name, total=event["steps"], note="")
        rate = event.get("images_per_second")
        note = f"epoch {event['epoch']}" + (f", {rate:,.0f} images/s" if rate else "")
        self._bars.update(self._tasks[trial], completed=event["step"], total=event["steps"], note=note)

    def _end(self, trial: Trial, event: Mapping[str, Any]) -> None:
        if trial in self._tasks:
            self._bars.remove_task(self._tasks.pop(trial))
        self._ended += 1
        seconds = event.get("seconds")
        took = f" in {seconds:.0f} s" if seconds is not None else ""
        reason = f": {event['reason']}" if event.get("reason") else ""
        self._console.print(f"[{self._ended}/{self._count}] {trial.name}: {event['status']}{took}{reason}")
        if self._whole is not None:
            self._bars.advance(self._whole)
