"""How long each verb takes to answer, beside the interpreter alone and beside importing torch.

    python benchmarks/startup.py

Verbs are run in turn, round after round, as processes of their own; medians and ranges are wall seconds.
Those that read a study, weights or a covariance file read small ones that are made first. `run` is timed
until its first trial trains, `ui` until the interface answers. A verb that must not need torch is checked
for it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from common import head, parser, quartiles, row, timed

from mimetic.study.layout import studies

ROOT = Path(__file__).parents[1]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
TINY = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "convmixer", "dim": 16, "depth": 2, "kernel_size": 3, "patch_size": 1},
    "data": {"type": "digits"},
    "train": {"epochs": 1, "batch_size": 64, "optimizer": {"type": "adamw", "lr": 0.01}},
    "arms": {"default": {}},
}
ENDLESS = {**TINY, "name": "endless", "train": {**TINY["train"], "epochs": 1000}}  # type: ignore[dict-item]
LIGHT = ("import mimetic", "mimetic --help", "validate", "schema", "ls", "new")
HEAVY = ("torch", "mlflow", "numpy")


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=7)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = cases(folder)
        watched: dict[str, Callable[[], float]] = {
            "run, to its first step": lambda: run_to_first_step(folder),
            "ui, until it answers": lambda: ui_to_answer(folder),
        }
        waits = {
            label: lambda words=words: timed(lambda: answer(words, folder))[0]  # type: ignore[misc]
            for label, words in commands.items()
        } | watched
        for wait in waits.values():
            wait()  # writes the byte code
        times: dict[str, list[float]] = {label: [] for label in waits}
        for _ in range(rounds):
            for label, wait in waits.items():
                times[label].append(wait())
        head("command", "median s", "range", "imports")
        for label, found in times.items():
            heavy = "" if label in watched else imports(commands[label], folder)
            if label in LIGHT and heavy:
                raise SystemExit(f"{label} imports {heavy}")
            row(label, f"{quartiles(found)[1]:.3f}", f"{min(found):.3f} – {max(found):.3f}", heavy or "–")


def cases(folder: Path) -> dict[str, list[str]]:
    """Return the commands that end by themselves, after making what they read."""
    for recipe in (TINY, ENDLESS):
        (folder / f"{recipe['name']}.yaml").write_text(json.dumps(recipe))
    answer(mimetic("run", "tiny.yaml", "--root", "runs"), folder)
    (study,) = studies(folder / "runs")
    trial = study / "default" / "seed-0"
    network = ["--recipe", "tiny.yaml", "--arm", "default"]
    weights = ["--checkpoint", str(trial / "weights.safetensors"), *network]
    answer(mimetic("harvest", "--statistic", "filters", *weights, "-o", "filters.safetensors"), folder)
    verbs = {
        "validate": [QUICKSTART],
        "schema": [],
        "ls": ["recipes"],
        "new": ["--from", "quickstart", "NEW"],
        "plan": [QUICKSTART],
        "explain": [QUICKSTART, "blocks.0.spatial"],
        "diff": [f"{QUICKSTART}#default", f"{QUICKSTART}#closed-form"],
        "compare": [str(study), "--root", "runs"],
        "sync": [str(study), "--root", "runs"],
        "show": ["filters.safetensors"],
        "harvest": ["--statistic", "filters", *weights, "-o", "again.safetensors"],
        "similarity": [str(trial), str(trial), *network, "--weights-only"],
        "ansatz": [*weights, "--images", "8"],
    }
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import torch": [sys.executable, "-c", "import torch"],
        "import mlflow": [sys.executable, "-c", "import mlflow"],
        "import mimetic": [sys.executable, "-c", "import mimetic"],
        "mimetic --help": mimetic("--help"),
        **{verb: mimetic(verb, *words) for verb, words in verbs.items()},
    }


def mimetic(*words: str) -> list[str]:
    """Return a command of ours."""
    return [sys.executable, "-m", "mimetic", *words]


def answer(command: Sequence[str], folder: Path) -> str:
    """Run a command to its end, and return what it says on standard error; `NEW` is a file not there yet."""
    fresh = str(folder / f"{time.monotonic_ns()}.yaml")
    words = [fresh if word == "NEW" else word for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done.stderr


def imports(command: Sequence[str], folder: Path) -> str:
    """Return which heavy packages a command of ours imports."""
    if "mimetic" not in command and "import mimetic" not in command:
        return ""
    said = answer([command[0], "-X", "importtime", *command[1:]], folder)
    names = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    return " ".join(name for name in HEAVY if name in names)


def run_to_first_step(folder: Path) -> float:
    """Return the seconds from the command to the first trial's evaluation before training."""
    root = folder / f"endless-{time.monotonic_ns()}"
    command = mimetic("run", "endless.yaml", "--root", str(root), "--workers", "1")
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        journal = "studies/*/*/default/seed-0/journal.jsonl"
        while not any('"epoch"' in path.read_text() for path in root.glob(journal)):
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        run.send_signal(signal.SIGTERM)
    return seconds


def ui_to_answer(folder: Path) -> float:
    """Return the seconds from the command to the first answer of the interface."""
    began = time.perf_counter()
    command = mimetic("ui", "--root", "runs")
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as ui:
        assert ui.stdout is not None
        found = next(found for line in ui.stdout if (found := re.search(r"http://([\d.]+):(\d+)", line)))
        while not answers(found[1], int(found[2])):
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        os.killpg(ui.pid, signal.SIGINT)
    return seconds


def answers(host: str, port: int) -> bool:
    """Tell whether a server answers."""
    connection = HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
