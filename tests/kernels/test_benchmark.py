"""The benchmark runs, and the kernel equals its plain reference."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quick_benchmark_runs() -> None:
    """Every figure is measured on a small case, and kernel and AGOP equal a plain port of the formulas."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kernels.py", "--quick"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all bounds are met"
