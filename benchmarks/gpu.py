"""The set for one GPU: `python -m benchmarks --gpu`, at most eight minutes, offline, without MLflow.

It needs torch ≥ 2.11, torchvision, timm, pydantic, PyYAML, regex, safetensors, scipy, scikit-learn,
matplotlib, typer, rich and filelock; not MLflow, and no network. What a machine without network lacks is
fetched elsewhere with the versions of constraints.txt and installed from files, torch left as it is:

    python -m pip download --no-deps --dest wheels timm==… regex==… …      # with network
    python -m pip install --no-index --no-deps --target site wheels/*.whl  # without
    PYTHONPATH=site python -m benchmarks --gpu

Each part is a measurement of the list with the options of `PARTS`, runs in a process of its own and is
stopped at its time limit; what it has not measured by then is missing and the exit code is 1. `--dry` runs
the same parts in tiny sizes on a CPU.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from benchmarks.measurement import ROOT, Cell, Column, DeviceOptions, Result, Table, measurement, option
from benchmarks.trials import HOUR, Ran, run_command


# --------------------------------------------------------------------------------------------- slots
@dataclass(frozen=True, kw_only=True, slots=True)
class SlotOptions(DeviceOptions):
    """Flags of `slots`."""

    slots: tuple[int, ...] = option((1, 2, 4, 8), "trials at a time, one process each")
    count: int = option(20_000, "training images of 32×32")
    dim: int = option(64, "channels of the ConvMixer")
    epochs: int = option(6, "epochs of a trial")
    mps: tuple[str, ...] = option(("off", "on"), "without and with NVIDIA's MPS", ["off", "on"])
    seconds: float = option(200.0, "time for all; what does not fit is left out")


@measurement(takes="4 min", slots=(2,), count=32, dim=8, epochs=1)
def slots(options: SlotOptions) -> Result:
    """Measure trials per hour of 1 to 8 processes on one GPU, with and without MPS.

    Each row is a study of as many trials as processes, by `mimetic run --offline --workers N`; a trial is a
    ConvMixer of depth 4 on synthetic images, too small to fill a GPU. Trials per hour count the time from the
    first trial's start to the last one's end; images per second are the sum over the trials of the median of
    their epochs. MPS is a daemon that this measurement starts and stops, with its pipes in a folder of its
    own; the GPU's settings are not touched.
    """
    deadline = time.monotonic() + options.seconds
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    failures: list[str] = []
    for mode in options.mps:
        reason = _no_mps(options) if mode == "on" else None
        if reason is not None:
            notes.append(f"Not measured with MPS: {reason}.")
            continue
        with tempfile.TemporaryDirectory() as folder, _mps(Path(folder), on=mode == "on"):
            for count in options.slots:
                left = deadline - time.monotonic()
                try:
                    ran = _trials(options, count, timeout=left)
                except subprocess.TimeoutExpired:
                    failures.append(f"{count} processes, MPS {mode}: stopped, no time was left.")
                    break
                except subprocess.CalledProcessError as error:
                    failures.append(f"{count} processes, MPS {mode}: {error.stderr[-500:]}")
                    continue
                rows.append((mode, count, ran.running, HOUR * count / ran.running, _images_per_second(ran)))
            if mode == "on" and not _mps_servers():
                failures.append("MPS was started, but no process used it.")
    base = {row[0]: row[3] for row in rows if row[1] == 1}
    alone = base.get("off")
    rows = [(*row, row[3] / alone if alone is not None else None) for row in rows]  # type: ignore[operator]
    columns = (
        Column("MPS"),
        Column("processes", "d"),
        Column("seconds", ".1f"),
        Column("trials/hour", ",.0f"),
        Column("images/s, together", ",.0f"),
        Column("trials/hour beside one process", ".2f"),
    )
    note = (
        f"ConvMixer-{options.dim}/4, {options.count:,} images × {options.epochs} epochs a trial, batch 128."
    )
    return Result((Table(columns, rows),), (note, *notes), tuple(failures))


def _trials(options: SlotOptions, count: int, *, timeout: float) -> Ran:
    """Train so many trials at a time."""
    study = {
        "recipe": 1,
        "name": "slots",
        "model": {"type": "convmixer", "dim": options.dim, "depth": 4, "kernel_size": 5, "patch_size": 2},
        "data": {"type": "synthetic", "count": options.count},
        "train": {"epochs": options.epochs, "batch_size": 128, "compile": False},
        "seeds": count,
        "arms": {"default": {}},
    }
    return run_command(study, "--offline", workers=count, device=options.device, timeout=timeout)


def _images_per_second(ran: Ran) -> float:
    """Return the sum over the trials of the median of their epochs."""
    epochs = ([e for e in events if e["event"] == "epoch" and e["epoch"] > 0] for events in ran.journals)
    return sum(statistics.median(e["metrics"]["images_per_second"] for e in trained) for trained in epochs)


def _no_mps(options: SlotOptions) -> str | None:
    """Return why MPS cannot be used; None if it can."""
    if options.where.type != "cuda":
        return f"a {options.where.type} has none"
    return None if which("nvidia-cuda-mps-control") else "there is no nvidia-cuda-mps-control here"


@contextmanager
def _mps(folder: Path, *, on: bool) -> Iterator[None]:
    """Run the MPS daemon inside the block; processes started there find it in the environment."""
    if not on:
        yield
        return
    os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    try:
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, capture_output=True, timeout=30)
        yield
    finally:
        _mps_control("quit")
        for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
            del os.environ[name]


def _mps_servers() -> str:
    """Return the process ids of MPS servers; a process that uses MPS has one started."""
    return _mps_control("get_server_list")


def _mps_control(command: str) -> str:
    done = subprocess.run(
        ["nvidia-cuda-mps-control"],
        input=f"{command}\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip()


# --------------------------------------------------------------------------------------------- the set
@dataclass(frozen=True, slots=True)
class Part:
    """A measurement of the set.

    Attributes:
        result: Name of its result.
        name: Its name in the list.
        options: Its options on a GPU.
        dry: Its options under `--dry`, beside its own tiny sizes.
        seconds: When it is stopped.
    """

    result: str
    name: str
    options: Sequence[str]
    dry: Sequence[str]
    seconds: int


THREADS = str(min(8, os.cpu_count() or 1))
TRAINING = ("--images", "50000", "--epochs", "4", "--batch", "512", "--compile")
HARVEST = ("--parts", "exact", "probes", "memory")

PARTS = (
    Part("ceiling", "ceiling", [*TRAINING, "off"], ["--compile", "off"], 50),
    Part("ceiling-compiled", "ceiling", [*TRAINING, "on"], ["--compile", "on"], 90),
    Part("slots", "slots", ["--seconds", "190"], [], 200),
    Part("planning", "planning", ["--smallest", "5e8", "--threads", THREADS], [], 70),
    Part("harvest", "harvest", HARVEST, HARVEST, 60),
)
"""Share of the bf16 ceiling, compiled and not; processes, without and with MPS; 10⁹ weights; AGOP."""


def run_set(*, dry: bool, folder: Path) -> int:
    """Run the parts one after another, print and write their results; return the exit code."""
    failed = []
    for part in PARTS:
        started = time.monotonic()
        if not _run_part(part, dry=dry, folder=folder):
            failed.append(part.result)
        print(f"\n({part.result}: {time.monotonic() - started:.0f} s)\n", flush=True)
    print(f"incomplete: {', '.join(failed)}" if failed else "all parts are complete")
    return 1 if failed else 0


def _run_part(part: Part, *, dry: bool, folder: Path) -> bool:
    """Run a part in a process of its own; return whether it measured everything in time."""
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        part.name,
        "--out",
        str(folder.resolve() / f"{part.result}.json"),
    ]
    command += ["--dry", "--device", "cpu", *part.dry] if dry else ["--device", "cuda", *part.options]
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if dry and "on" in part.dry:  # takes the same path, and compiles nothing
        environment["TORCHDYNAMO_DISABLE"] = "1"
    print(f"## {part.result}\n", flush=True)
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            return process.wait(part.seconds * (4 if dry else 1)) == 0  # CI shares its cores
        except subprocess.TimeoutExpired:
            print(f"stopped after {part.seconds} s", flush=True)
            process.terminate()  # leaves every `finally`: daemons and workers end
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            return False
