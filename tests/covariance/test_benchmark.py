"""The benchmark runs, and ours equals its plain reference."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quick_benchmark_runs() -> None:
    """Every figure is measured, on a small case, and the one bound that holds there is met."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "harvest.py", "--quick", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    equal = next(line for line in lines if line.startswith("equal to the reference"))
    assert float(equal.split(": ")[1].split()[0]) < 1e-10
    assert lines[-1] == "all bounds are met"
