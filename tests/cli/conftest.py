"""Verbs in this process and in processes of their own, a tiny recipe, and a study made by hand."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mimetic.cli import app
from mimetic.journal import Journal

TINY = """\
recipe: 1
name: tiny
model: {type: convmixer, dim: 8, depth: 2, kernel_size: 3, patch_size: 2}
data: {type: digits, train_size: 64, test_size: 32}
train: {epochs: 1, batch_size: 32}
seeds: 1
arms:
  default: {}
  frozen:
    init:
      - id: filters
        match: {kind: depthwise_conv}
        covariance: closed_form
        freeze: true
"""

# Right answers on 360 images after each epoch, of a real run of recipes/quickstart.yaml, and its seconds.
QUICKSTART: dict[str, list[tuple[list[int], float]]] = {
    "default": [
        ([37, 38, 140, 339, 348], 4.56),
        ([28, 63, 234, 340, 350], 4.54),
        ([38, 42, 250, 342, 347], 5.14),
    ],
    "closed-form": [
        ([31, 37, 259, 349, 353], 4.09),
        ([28, 77, 258, 339, 355], 4.46),
        ([31, 59, 262, 326, 348], 5.58),
    ],
    "closed-form-frozen": [
        ([31, 37, 269, 327, 355], 4.43),
        ([28, 45, 168, 324, 355], 4.55),
        ([31, 69, 210, 339, 351], 5.16),
    ],
}

Call = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that runs a verb in this process, at a width that cuts nothing."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def invoke(*words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="mimetic")

    return invoke


@pytest.fixture
def surroundings() -> dict[str, str]:
    """Return this environment with the package on the path and no tracking server."""
    root = str(Path(__file__).parents[2])
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    found.pop("MLFLOW_TRACKING_URI", None)
    return found


@pytest.fixture
def bare(surroundings: dict[str, str]) -> Process:
    """Return a function that runs the interpreter in a process of its own."""

    def run(
        *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *(str(word) for word in words)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**surroundings, **({} if env is None else env)},
        )

    return run


@pytest.fixture
def process(bare: Process) -> Process:
    """Return a function that runs `python -m mimetic` in a process of its own."""

    def run(*words: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        return bare("-m", "mimetic", *words, **options)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return the path of a recipe that trains two arms in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def recipes() -> Path:
    """Return the folder of shipped recipes."""
    return Path(__file__).parents[2] / "recipes"


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """Return the root of the runs with one study in it: the quickstart's, as it ended."""
    root = tmp_path / "mlruns"
    folder = root / "studies" / "quickstart" / "20261121-032523"
    for arm, seeds in QUICKSTART.items():
        for seed, (right, seconds) in enumerate(seeds):
            write_journal(folder / arm / f"seed-{seed}", [n / 360 for n in right], seconds)
    write_study(folder, list(QUICKSTART), seeds=3)
    return root


def write_study(folder: Path, arms: Sequence[str], *, seeds: int) -> None:
    """Write the record of a study."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "recipe": folder.parent.name,
        "arms": list(arms),
        "seeds": list(range(seeds)),
        "baseline": arms[0],
        "metric": "test/acc",
        "data": {},
        "host": "here",
        "environment": {},
    }
    (folder / "study.json").write_text(json.dumps(record), encoding="utf-8")


def write_journal(folder: Path, accuracies: Sequence[float], seconds: float) -> None:
    """Write the journal of a trial that finished with these accuracies, epoch 0 first."""
    with Journal(folder / "journal.jsonl") as journal:
        journal.write("start", arm=folder.parent.name, seed=0)
        for epoch, accuracy in enumerate(accuracies):
            metrics = {"test/acc": accuracy, "test/loss": 1 - accuracy, "epoch_seconds": 0.0}
            if epoch == len(accuracies) - 1:
                metrics["epoch_seconds"] = seconds
            journal.write("epoch", epoch=epoch, step=epoch, metrics=metrics)
        journal.write("end", status="FINISHED", reason=None, seconds=seconds)
