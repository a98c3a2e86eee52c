"""How long each verb takes to answer."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.measurement import Cell, Column, Options, Result, Table, measurement, option
from benchmarks.timing import timed
from mimetic.study.layout import studies

QUICKSTART = str(Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
TINY = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "convmixer", "dim": 16, "depth": 2, "kernel_size": 3, "patch_size": 1},
    "data": {"type": "digits"},
    "train": {"epochs": 1, "batch_size": 64, "optimizer": {"type": "adamw", "lr": 0.01}},
    "arms": {"default": {}},
}
ENDLESS = {**TINY, "name": "endless", "train": {**TINY["train"], "epochs": 1000}}  # type: ignore[dict-item]
LIGHT = ("import mimetic", "mimetic --help", *(f"mimetic {v}" for v in ("validate", "schema", "ls", "new")))
"""Commands that must not import a heavy package."""
HEAVY = ("torch", "mlflow", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class StartupOptions(Options):
    """Flags of `startup`."""

    rounds: int = option(7, "rounds")
    only: str = option("", "only commands whose name contains this, e.g. validate")


@measurement(takes="10 min", rounds=1, only="validate")
def startup(options: StartupOptions) -> Result:
    """Time every verb from the command to its answer, beside Python and PyTorch's import.

    Verbs run in turn, round after round, as processes of their own; medians and ranges are wall seconds.
    Those that read a study, weights or a covariance file read small ones that are made first. `run` is timed
    until its first trial is evaluated before training, `ui` until the interface answers. A verb that must not
    import torch is checked for it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_files(folder)
        commands = {name: words for name, words in _commands(folder).items() if options.only in name}
        waits: dict[str, Callable[[], float]] = {
            name: partial(_seconds, words, folder) for name, words in commands.items()
        }
        others = {
            "mimetic run, to its first step": partial(_run_to_first_step, folder),
            "mimetic ui, until it answers": partial(_ui_to_answer, folder),
        }
        waits |= {name: wait for name, wait in others.items() if options.only in name}
        for wait in waits.values():
            wait()  # writes the byte code
        seconds: dict[str, list[float]] = {name: [] for name in waits}
        for _ in range(options.rounds):
            for name, wait in waits.items():
                seconds[name].append(wait())
        heavy = {name: _heavy_imports(words, folder) for name, words in commands.items()}
    rows: list[tuple[Cell, ...]] = [
        (f"`{name}`", statistics.median(found), (min(found), max(found)), heavy.get(name) or None)
        for name, found in seconds.items()
    ]
    columns = (Column("command"), Column("median, s", ".3f"), Column("range", ".3f"), Column("imports"))
    failures = [f"`{name}` imports {heavy[name]}." for name in LIGHT if heavy.get(name)]
    return Result((Table(columns, rows),), failures=tuple(failures))


def _mimetic(*words: str) -> list[str]:
    return [sys.executable, "-m", "mimetic", *words]


def _write_files(folder: Path) -> None:
    """Write the recipes, and a study and a covariance file to read."""
    for recipe in (TINY, ENDLESS):
        (folder / f"{recipe['name']}.yaml").write_text(json.dumps(recipe))
    _run(_mimetic("run", "tiny.yaml", "--root", "runs"), folder)
    harvest = ["--statistic", "filters", *_weights(folder), "-o", "filters.safetensors"]
    _run(_mimetic("harvest", *harvest), folder)


def _trial(folder: Path) -> Path:
    (study,) = studies(folder / "runs")
    return study / "default" / "seed-0"


def _weights(folder: Path) -> list[str]:
    weights = _trial(folder) / "weights.safetensors"
    return ["--checkpoint", str(weights), "--recipe", "tiny.yaml", "--arm", "default"]


def _commands(folder: Path) -> dict[str, list[str]]:
    """Return the commands that end by themselves."""
    trial, weights = str(_trial(folder)), _weights(folder)
    study = str(Path(trial).parents[1])
    verbs = {
        "validate": [QUICKSTART],
        "schema": [],
        "ls": ["recipes"],
        "new": ["--from", "quickstart", "NEW"],
        "plan": [QUICKSTART],
        "explain": [QUICKSTART, "blocks.0.spatial"],
        "diff": [f"{QUICKSTART}#default", f"{QUICKSTART}#closed-form"],
        "compare": [study, "--root", "runs"],
        "sync": [study, "--root", "runs"],
        "show": ["filters.safetensors"],
        "harvest": ["--statistic", "filters", *weights, "-o", "again.safetensors"],
        "similarity": [trial, trial, *weights[2:], "--weights-only"],
        "ansatz": [*weights, "--images", "8"],
    }
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import torch": [sys.executable, "-c", "import torch"],
        "import mlflow": [sys.executable, "-c", "import mlflow"],
        "import mimetic": [sys.executable, "-c", "import mimetic"],
        "mimetic --help": _mimetic("--help"),
        **{f"mimetic {verb}": _mimetic(verb, *words) for verb, words in verbs.items()},
    }


def _run(command: Sequence[str], folder: Path) -> str:
    """Run a command to its end, and return its standard error; `NEW` is a file that does not exist yet."""
    fresh = str(folder / f"{time.monotonic_ns()}.yaml")
    words = [fresh if word == "NEW" else word for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done.stderr


def _seconds(command: Sequence[str], folder: Path) -> float:
    return timed(lambda: _run(command, folder))[0]


def _heavy_imports(command: Sequence[str], folder: Path) -> str:
    """Return which heavy packages a command of mimetic imports."""
    if "mimetic" not in command and "import mimetic" not in command:
        return ""
    log = _run([command[0], "-X", "importtime", *command[1:]], folder)
    names = {line.rpartition("|")[2].strip() for line in log.splitlines()}
    return ", ".join(name for name in HEAVY if name in names)


def _run_to_first_step(folder: Path) -> float:
    """Return the seconds from the command to the first trial's evaluation before training."""
    root = folder / f"endless-{time.monotonic_ns()}"
    command = _mimetic("run", "endless.yaml", "--root", str(root), "--workers", "1")
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        journal = "studies/*/*/default/seed-0/journal.jsonl"
        while not any('"epoch"' in path.read_text() for path in root.glob(journal)):
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        run.send_signal(signal.SIGTERM)
    return seconds


def _ui_to_answer(folder: Path) -> float:
    """Return the seconds from the command to the first answer of the interface."""
    started = time.perf_counter()
    with subprocess.Popen(
        _mimetic("ui", "--root", "runs"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as ui:
        assert ui.stdout is not None
        found = next(found for line in ui.stdout if (found := re.search(r"http://([\d.]+):(\d+)", line)))
        while not _answers(found[1], int(found[2])):
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        os.killpg(ui.pid, signal.SIGINT)
    return seconds


def _answers(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
