"""How long each verb takes to answer, beside the interpreter alone and beside importing torch.

    python benchmarks/startup.py

Verbs are run in turn, round after round, as processes of their own; medians and ranges are wall seconds.
A verb that must not need torch is checked for it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
MIMETIC = [sys.executable, "-m", "mimetic"]
CASES: dict[str, list[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import mlflow": [sys.executable, "-c", "import mlflow"],
    "import mimetic": [sys.executable, "-c", "import mimetic"],
    "mimetic --help": [*MIMETIC, "--help"],
    "mimetic validate": [*MIMETIC, "validate", QUICKSTART],
    "mimetic schema": [*MIMETIC, "schema"],
    "mimetic ls": [*MIMETIC, "ls", "recipes"],
    "mimetic plan": [*MIMETIC, "plan", QUICKSTART],
    "mimetic explain": [*MIMETIC, "explain", QUICKSTART, "blocks.0.spatial"],
    "mimetic diff": [*MIMETIC, "diff", f"{QUICKSTART}#default", f"{QUICKSTART}#closed-form"],
}
LIGHT = ("import mimetic", "mimetic --help", "mimetic validate", "mimetic schema", "mimetic ls")


def seconds(command: list[str], folder: str) -> float:
    """Return the wall time of a command."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def heavy_imports(command: list[str], folder: str) -> str:
    """Return which heavy packages a command imports."""
    timed = [command[0], "-X", "importtime", *command[1:]]
    found = subprocess.run(timed, cwd=folder, check=True, capture_output=True, text=True).stderr
    names = {line.rpartition("|")[2].strip() for line in found.splitlines()}
    return " ".join(name for name in ("torch", "mlflow", "numpy") if name in names)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        for command in CASES.values():
            seconds(command, folder)  # writes the byte code
        times: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(rounds):
            for name, command in CASES.items():
                times[name].append(seconds(command, folder))
        print(f"| {'command':<18} | median s | range         | imports |")
        print(f"|{'-' * 20}|---------:|---------------|---------|")
        for name, found in times.items():
            heavy = (
                heavy_imports(CASES[name], folder) if name.startswith(("mimetic", "import mimetic")) else ""
            )
            if name in LIGHT and heavy:
                raise SystemExit(f"{name} imports {heavy}")
            middle = statistics.median(found)
            print(f"| {name:<18} | {middle:8.3f} | {min(found):.3f} – {max(found):.3f} | {heavy or '–':<7} |")


if __name__ == "__main__":
    main()
