"""What a study tells, drawn: on a pipe line by line, in a terminal with bars."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mimetic.cli.display import TerminalDisplay
from mimetic.study.layout import Trial

ONE, TWO = Trial("study", "default", 0), Trial("study", "closed-form", 0)


def told(*events: tuple[Trial, dict[str, Any]], width: int = 0, trials: int = 2, studies: int = 1) -> str:
    """Return what is drawn of these events, in each study; a width stands for a terminal."""
    file = StringIO()
    console = Console(
        file=file, width=width if width else 140, force_terminal=width > 0, highlight=False, markup=False,
        color_system=None, legacy_windows=False,
    )  # fmt: skip
    with TerminalDisplay(console, metric="test/acc") as display:
        for _ in range(studies):
            display.start(Path("mlruns/studies/tiny/now"), [ONE, TWO][:trials])
            for trial, event in events:
                display.update(trial, [event])
    return file.getvalue()


def event(name: str, time: float, **fields: Any) -> dict[str, Any]:
    """Return an event of a journal."""
    return {"event": name, "time": time, **fields}


END = event("end", 9.0, status="FINISHED", reason=None, seconds=8.2)


def test_lines_of_a_pipe() -> None:
    """The study, then one line for each trial that ends: result, or reason."""
    text = told(
        (ONE, event("start", 1.0, resumed_from_epoch=None, note=None)),
        (ONE, event("progress", 2.0, epoch=1, step=5, steps=20, images_per_second=1000.0)),
        (ONE, event("epoch", 8.0, epoch=1, step=20, metrics={"test/acc": 0.9667})),
        (ONE, END),
        (TWO, event("end", 9.5, status="KILLED", reason="stopped by SIGTERM", seconds=None)),
    )
    assert text.splitlines() == [
        "mlruns/studies/tiny/now: 2 trials to run",
        "[1/2] default · seed 0: FINISHED in 8 s, test/acc 96.67%",
        "[2/2] closed-form · seed 0: KILLED: stopped by SIGTERM",
    ]


@pytest.mark.parametrize("width", [0, 80])
def test_each_study_counts_its_own_trials(width: int) -> None:
    """A selection runs before its study, in the same display."""
    text = told((ONE, END), (TWO, END), studies=2, width=width)
    lines = [line for line in text.splitlines() if "seed 0: FINISHED" in line]
    assert [re.findall(r"\[./.\]", line)[-1] for line in lines] == ["[1/2]", "[2/2]"] * 2


def test_what_a_trial_goes_on_from() -> None:
    """A checkpoint that was taken, and one that could not be read."""
    text = told(
        (ONE, event("start", 1.0, resumed_from_epoch=3, note=None)),
        (TWO, event("start", 1.0, resumed_from_epoch=None, note="state.safetensors: damaged")),
    )
    assert text.splitlines()[1:] == [
        "default · seed 0: resumes after epoch 3",
        "closed-form · seed 0: state.safetensors: damaged",
    ]


def test_what_compiling_cost_and_why_it_failed() -> None:
    """Said while the study runs; what is only noted stays in the journal, and so does a graph found again."""
    text = told(
        (ONE, event("compiled", 1.0, first_step_seconds=21.4)),
        (TWO, event("compiled", 1.0, first_step_seconds=0.03)),
        (TWO, event("note", 1.0, text="not compiled: there is no compiler", level="warning")),
        (TWO, event("note", 1.0, text="blocks.0.weight scaled by 1.2")),
    )
    assert text.splitlines()[1:] == [
        "default · seed 0: compiled, its first step took 21 s",
        "closed-form · seed 0: not compiled: there is no compiler",
    ]


def test_nothing_left_to_run() -> None:
    """A study that is complete says so."""
    assert told(trials=0) == "mlruns/studies/tiny/now: every trial has finished already\n"


@pytest.mark.parametrize("width", [60, 120])
def test_bars_of_a_terminal(width: int) -> None:
    """Throughput and time left stand in one line that fits, of the trial and of the whole."""
    text = told(
        (ONE, event("start", 1.0)),
        (ONE, event("progress", 2.0, epoch=1, step=5, steps=20, images_per_second=1234.5)),
        (ONE, event("progress", 4.0, epoch=1, step=10, steps=20, images_per_second=1234.5)),
        width=width,
    )
    lines = [line.rpartition("\x1b[2K")[2].rstrip() for line in text.splitlines()]
    (trial, *_) = [" ".join(line.split()) for line in lines if line.startswith("default")][::-1]
    assert trial.endswith("50% epoch 1, 1,234 images/s 4 s left")  # 10 steps at 2.5 a second
    (whole, *_) = [" ".join(line.split()) for line in lines if line.startswith("study ")][::-1]
    assert whole.endswith("25% 0/2 trials 9 s left")  # half of one of two took 3 s
    assert max(len(line) for line in lines) <= width


def test_a_bar_while_a_network_begins() -> None:
    """Large attentions take seconds each: how many of the draws are done stands there before training."""
    text = told((ONE, event("initialize", 2.0, done=3, total=12)), width=120)
    lines = [" ".join(line.rpartition("\x1b[2K")[2].split()) for line in text.splitlines()]
    assert any(line.startswith("default · seed 0") and line.endswith("25% initialize 3/12") for line in lines)


def test_a_line_for_each_trial_though_bars_come_and_go() -> None:
    """What is printed above the bars is not drawn over: no thread draws at the same time."""
    events = [
        (trial, each)
        for trial in (ONE, TWO)
        for each in (
            event("start", 1.0),
            event("progress", 2.0, epoch=1, step=5, steps=20, images_per_second=10.0),
        )
    ]
    text = told(*events, (ONE, END), (TWO, END), width=120)
    assert text.count("[1/2] default · seed 0: FINISHED in 8 s") == 1
    assert text.count("[2/2] closed-form · seed 0: FINISHED in 8 s") == 1
