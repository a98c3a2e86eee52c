"""Show the progress of a study in a terminal: one bar for the study, one line per running trial.

Rich's refresh thread is off: it can overwrite a line that is printed above the bars at the same moment.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Column

from mimetic.journal import Event
from mimetic.printable import pluralize
from mimetic.study.comparing.tables import duration
from mimetic.study.display import Display, ending
from mimetic.study.layout import Trial

MINUTE = 60

_WIDE = 100
"""Columns from which a terminal has room for full-width bars."""


class TerminalDisplay(Display):
    """Show progress bars on a terminal; print one line per finished trial on a pipe.

    The metric, e.g. `test/acc`, is shown for each finished trial.
    """

    def __init__(self, console: Console, *, metric: str) -> None:
        self._console = console
        self._metric = metric
        self._bars = Progress(
            *_columns(console.width),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._study_bar = self._bars.add_task("planning every arm", total=None, note="", left="")
        self._tasks: dict[Trial, TaskID] = {}
        self._first_progress: dict[Trial, Event] = {}
        self._fraction: dict[Trial, float] = {}
        self._start_time: float | None = None
        self._result: dict[Trial, float] = {}
        self._num_trials = 0
        self._num_ended = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Receive the trials about to run; those of a selection come before those of the study."""
        self._num_trials, self._num_ended, self._start_time = len(trials), 0, None
        what = f"{pluralize(len(trials), 'trial')} to run" if trials else "every trial has finished already"
        self._console.print(f"{study}: {what}", soft_wrap=True)
        self._bars.update(self._study_bar, description="study", total=len(trials), completed=0)
        self._refresh_study_bar()

    def add(self, trials: Sequence[Trial]) -> None:
        """Receive further trials that will run."""
        self._num_trials += len(trials)
        self._bars.update(self._study_bar, total=self._num_trials)

    def update(self, trial: Trial, events: Sequence[Event]) -> None:
        """Receive new events of a trial's journal."""
        for event in events:
            if event["event"] == "start":
                self._add_trial(trial, event)
                self._start(trial, event)
            elif event["event"] == "initialize":
                self._add_trial(trial, event)
                note = f"initialize {event['done']}/{event['total']}"
                self._bars.update(
                    self._tasks[trial], completed=event["done"], total=event["total"], note=note
                )
            elif event["event"] == "progress":
                self._advance(trial, event)
            elif event["event"] == "compiled" and event["first_step_seconds"] >= 1.0:
                self.message(
                    f"{trial.name}: compiled, its first step took {event['first_step_seconds']:.0f} s"
                )
            elif event["event"] == "note" and event.get("level") == "warning":
                self.message(f"{trial.name}: {event['text']}")
            elif event["event"] == "epoch" and self._metric in event["metrics"]:
                self._result[trial] = event["metrics"][self._metric]
            elif event["event"] == "end":
                self._end(trial, event)
        if events:
            self._refresh_study_bar(now=events[-1]["time"])

    def message(self, text: str) -> None:
        """Print a message above the bars."""
        self._console.print(text, soft_wrap=True)

    def _add_trial(self, trial: Trial, event: Event) -> None:
        if self._start_time is None:
            self._start_time = event["time"]
        if trial not in self._tasks:
            self._tasks[trial] = self._bars.add_task(trial.name, total=None, note="starts", left="")

    def _start(self, trial: Trial, event: Event) -> None:
        """Report where a trial resumes, or why it could not."""
        if event.get("note"):
            self.message(f"{trial.name}: {event['note']}")
        if event.get("resumed_from_epoch") is not None:
            self.message(f"{trial.name}: resumes after epoch {event['resumed_from_epoch']}")

    def _advance(self, trial: Trial, event: Event) -> None:
        self._add_trial(trial, event)
        step, steps, rate = event["step"], event["steps"], event.get("images_per_second")
        first = self._first_progress.setdefault(trial, event)
        self._fraction[trial] = step / steps
        self._bars.update(
            self._tasks[trial],
            completed=step,
            total=steps,
            note=f"epoch {event['epoch']}" + (f", {rate:,.0f} images/s" if rate else ""),
            left=_left(steps - step, done=step - first["step"], seconds=event["time"] - first["time"]),
        )

    def _end(self, trial: Trial, event: Event) -> None:
        if trial in self._tasks:
            self._bars.remove_task(self._tasks.pop(trial))
        self._fraction.pop(trial, None)
        self._first_progress.pop(trial, None)
        self._num_ended += 1
        text = ending(trial, event, self._metric, self._result.get(trial))
        self._console.print(f"[{self._num_ended}/{self._num_trials}] {text}", soft_wrap=True)

    def _refresh_study_bar(self, *, now: float | None = None) -> None:
        """Update the bar of the study with the progress of its running trials, and the time left."""
        done = self._num_ended + sum(self._fraction.values())
        seconds = 0.0 if self._start_time is None or now is None else now - self._start_time
        self._bars.update(
            self._study_bar,
            completed=done,
            note=f"{self._num_ended}/{self._num_trials} trials",
            left=_left(self._num_trials - done, done=done, seconds=seconds),
            refresh=True,
        )


def _left(rest: float, *, done: float, seconds: float) -> str:
    """Return the estimated time left; empty before the first measurement."""
    if rest <= 0 or done <= 0 or seconds < 1:
        return ""
    whole = math.ceil(rest / done * seconds)
    return f"{whole} s left" if whole < MINUTE else f"{duration(whole)} left"


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """Return the columns for a terminal of this width; names are cut first."""
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    return (
        name,
        BarColumn(bar_width=24 if width >= _WIDE else 8),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[left]}"),
    )
