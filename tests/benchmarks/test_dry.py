"""Every measurement runs in tiny sizes on a CPU; the GPU set does so without MLflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.__main__ import MEASUREMENTS
from benchmarks.measurement import Result

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine takes minutes


def run(*words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks`."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_gpu_set_runs_without_mlflow(tmp_path: Path) -> None:
    """Each part leaves its result as JSON, on a machine on which MLflow cannot be imported."""
    (tmp_path / "mlflow.py").write_text("raise ImportError('not installed here')\n")
    done = run("--gpu", "--dry", "--out", str(tmp_path / "results"), path=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    for part in gpu.PARTS:
        found = json.loads((tmp_path / "results" / f"{part.result}.json").read_text())
        assert all(table["rows"] for table in found["tables"])
        assert found["environment"]["torch"]
        assert found["command"].startswith(f"python -m benchmarks {part.name}")


HERE = ("throughput", "inputs", "initialization", "attention", "harvest", "kernels")
"""Measured in this process; the others start processes themselves."""
OTHERS = set(MEASUREMENTS) - {part.name for part in gpu.PARTS} - set(HERE)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_measurement_runs(name: str, tmp_path: Path) -> None:
    """A measurement that is not in the GPU set ends well and leaves its tables."""
    done = run(name, "--dry", "--out", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    result = Result.read(tmp_path / "result.json")
    assert result.tables[0].rows
    assert not result.failures


@pytest.mark.parametrize("name", HERE)
def test_measurement_runs_in_this_process(name: str) -> None:
    """It meets its bounds; AGOP and kernel equal plain ports of the formulas in float64."""
    entry = MEASUREMENTS[name]
    result = entry.run(entry.options(**entry.dry))
    assert result.tables[0].rows
    assert not result.failures
    compared = any("in float64 on a small case" in note for note in result.notes)
    assert compared == (name in {"harvest", "kernels"})
