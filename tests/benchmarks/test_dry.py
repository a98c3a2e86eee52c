"""Every measurement runs in tiny sizes on a CPU; the GPU set does so without MLflow."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, trials
from benchmarks.__main__ import MEASUREMENTS
from mimetic.journal import read_journal
from mimetic.recipe.load import load
from mimetic.study.study import run

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("undrawn", "warm_processes"),
    pytest.mark.timeout(900),  # a busy machine takes minutes
    pytest.mark.filterwarnings("ignore"),  # nor does a measurement make them errors
]


def test_gpu_set_runs_without_mlflow(tmp_path: Path) -> None:
    """Each part leaves its result as JSON, on a machine on which MLflow cannot be imported."""
    (tmp_path / "mlflow.py").write_text("raise ImportError('not installed here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--gpu", "--dry", "--out", str(tmp_path / "results")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}:{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in gpu.PARTS:
        found = json.loads((tmp_path / "results" / f"{part.result}.json").read_text())
        assert all(table["rows"] for table in found["tables"])
        assert found["environment"]["torch"]
        assert found["command"].startswith(f"python -m benchmarks {part.name}")


def run_here(study: dict[str, Any], *words: str, workers: int, **_: object) -> trials.Ran:
    """Train what `run_command` trains, in this process; `slots` of the GPU set starts the command itself."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        folder = run(load(study), root=root, offline="--offline" in words, workers=workers).folder
        journals = [read_journal(path) for path in folder.glob("*/seed-*/journal.jsonl")]
    return trials.Ran(time.monotonic() - started, sorted(journals, key=lambda events: events[0]["time"]))


whole_recipe = trials.recipe


def small_recipe(**sizes: Any) -> dict[str, Any]:
    """Return the studies' recipe with a small network and few images."""
    model = {"type": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 2}
    data = {"type": "digits", "train_size": 128, "test_size": 32}
    return whole_recipe(**sizes) | {"model": model, "data": data}


NAMES = set(MEASUREMENTS) - {part.name for part in gpu.PARTS} | {"harvest"}
"""The GPU set runs all of the others, and of `harvest` not what is compared in float64."""


@pytest.mark.parametrize("name", sorted(NAMES))
def test_measurement_runs(
    name: str, in_this_process: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It meets its bounds; AGOP and kernel equal plain ports of the formulas in float64."""
    monkeypatch.setattr(trials, "run_command", run_here)
    monkeypatch.setattr(trials, "recipe", small_recipe)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ['PYTHONPATH']}")
    entry = MEASUREMENTS[name]
    with in_this_process():
        result = entry.run(entry.options(**entry.dry))
    assert result.tables[0].rows
    assert not result.failures
    compared = any("in float64 on a small case" in note for note in result.notes)
    assert compared == (name in {"harvest", "kernels"})
