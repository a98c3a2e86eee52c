"""Show the progress of a study in a notebook: a bar for the study and for each running trial."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mimetic.journal import Event
from mimetic.printable import plain_html
from mimetic.study.display import Display, ending
from mimetic.study.layout import Trial

_LINES = 12
"""Messages and ended trials that stay visible."""

_SECONDS = 0.2
"""Time between two updates of the output."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    return module is not None and getattr(module.get_ipython(), "kernel", None) is not None


class _Output(Protocol):
    def update(self, content: object) -> None: ...


class NotebookDisplay(Display):
    """Updates one output of a cell; `metric` is shown for each finished trial."""

    def __init__(self, *, metric: str) -> None:
        from IPython.display import HTML, display

        self._html: Callable[[str], object] = HTML
        self._output: _Output = display(HTML(""), display_id=True)
        self._metric = metric
        self._head = ""
        self._running: dict[Trial, tuple[float, str]] = {}
        self._result: dict[Trial, float] = {}
        self._lines: list[str] = []
        self._ended = self._total = 0
        self._drawn = 0.0

    def start(self, study: Path, trials: Sequence[Trial]) -> None:
        """Receive the trials about to run; those of a selection come before those of the study."""
        self._head, self._total, self._ended = str(study), len(trials), 0
        self._draw()

    def add(self, trials: Sequence[Trial]) -> None:
        """Receive further trials that will run."""
        self._total += len(trials)

    def update(self, trial: Trial, events: Sequence[Event]) -> None:
        """Receive new events of a trial's journal."""
        for event in events:
            if event["event"] == "start":
                self._running[trial] = (0.0, "starts")
            elif event["event"] == "progress":
                self._running[trial] = (event["step"] / event["steps"], f"epoch {event['epoch']}")
            elif event["event"] == "epoch" and self._metric in event["metrics"]:
                self._result[trial] = event["metrics"][self._metric]
            elif event["event"] == "end":
                self._running.pop(trial, None)
                self._ended += 1
                self._lines.append(ending(trial, event, self._metric, self._result.get(trial)))
        if self._ended == self._total or time.monotonic() - self._drawn > _SECONDS:
            self._draw()

    def message(self, text: str) -> None:
        """Receive a message."""
        self._lines.append(text)
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        done = self._ended + sum(fraction for fraction, _ in self._running.values())
        bars = [_bar(done / self._total if self._total else 1.0, f"{self._ended}/{self._total} trials")]
        bars += [_bar(share, f"{trial.name}, {note}") for trial, (share, note) in self._running.items()]
        lines = [plain_html(line) for line in (self._head, *self._lines[-_LINES:])]
        self._output.update(self._html("<br>\n".join((*lines, *bars))))


def _bar(share: float, label: str) -> str:
    return f'<progress value="{share:.4f}" max="1"></progress> {plain_html(label)}'
