"""What a study of many finished trials costs: to list, to compare, and to resume with nothing to do."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measurement import Cell, Column, Options, Result, Table, measurement, option
from benchmarks.timing import timed
from benchmarks.trials import recipe
from mimetic.journal import Journal
from mimetic.recipe.load import load
from mimetic.study.environment import versions
from mimetic.study.layout import trials_of
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study_folder import start


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyOptions(Options):
    """Flags of `many`."""

    arms: int = option(20, "arms")
    seeds: int = option(100, "seeds")
    epochs: int = option(10, "epochs of a trial")


@measurement(takes="1 min", arms=2, seeds=3)
def many(options: ManyOptions) -> Result:
    """Time `ls`, `compare` and `run --resume` on studies of many finished trials and of a single one.

    Journals are written as a worker writes them, with values that are made up; nothing is trained. Each verb
    is a process of its own, which imports what it needs: what the trials cost is the difference. `resume`
    runs twice: the first one writes the comparison, the second one finds everything done.
    """
    found = {(a, s): _verbs(a, s, options.epochs) for a, s in ((1, 1), (options.arms, options.seeds))}
    one, all_of_them = found.values()
    rows: list[tuple[Cell, ...]] = [(verb, *one[verb], *all_of_them[verb]) for verb in one]
    columns = (
        Column("verb"),
        *(
            Column(f"{what}, {size}", ".2f")
            for size in ("1 trial", "all")
            for what in ("s", "s of processor")
        ),
    )
    return Result((Table(columns, rows),), (f"All: {options.arms} arms × {options.seeds} seeds.",))


def _verbs(arms: int, seeds: int, epochs: int) -> dict[str, tuple[float, float]]:
    """Return wall and processor seconds of each verb."""
    with tempfile.TemporaryDirectory() as name:
        root, file = Path(name), Path(name, "trials.yaml")
        file.write_text(json.dumps(recipe(arms=arms, seeds=seeds, epochs=epochs)))
        _write_study(root, file, epochs)
        resume = ("run", str(file), "--resume", "--offline")
        verbs = {"ls": ("ls", "studies"), "compare": ("compare", "trials"), "resume": resume, "again": resume}
        return {verb: _seconds([*words, "--root", str(root)]) for verb, words in verbs.items()}


def _write_study(root: Path, file: Path, epochs: int) -> None:
    """Write a study whose trials have finished."""
    loaded = load(file)
    folder = start(root, loaded, plan_arms(loaded), open_data(loaded))
    for trial in trials_of(folder):
        with Journal(trial.journal) as journal:
            journal.write("start", arm=trial.arm, seed=trial.seed, content=trial.content, versions=versions())
            for epoch in range(epochs + 1):
                value = (trial.seed * 7 + epoch * 3) % 11 / 11
                metrics = {
                    "test/acc": value,
                    "test/loss": 1 - value,
                    "train/loss": value,
                    "epoch_seconds": 1.0,
                }
                journal.write("epoch", epoch=epoch, step=20 * epoch, metrics=metrics)
            journal.write("end", status="FINISHED", reason=None, seconds=10.0)


def _seconds(words: list[str]) -> tuple[float, float]:
    """Return wall and processor seconds of a verb in a process of its own."""
    before = os.times()
    work = partial(subprocess.run, [sys.executable, "-m", "mimetic", *words], check=True, capture_output=True)
    wall, _ = timed(work)
    after = os.times()
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    return wall, user + system
