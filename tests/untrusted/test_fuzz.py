"""Mutated recipes, overrides and files, in processes with limits; the seeds are fixed.

Each case ends with exit code 0, 1 or 2, without a traceback or an internal error, without a control character
in its output, within five seconds of its process's own time and one gigabyte more than an idle one. It starts
no program, opens no connection, runs no code of the input and changes no file elsewhere; see `watch`.
"""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from mimetic.cli import app
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.store import save_harvest
from mimetic.data.config import ImageFolder
from mimetic.data.load import load_dataset
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.journal import Journal
from mimetic.models.build import build
from mimetic.models.checkpoint import load_weights
from mimetic.models.config import ConvMixer
from tests.quick_cli import build_commands_once
from tests.untrusted.watch import Watch

build_commands_once()  # in the processes below, too

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(RECIPES.rglob("*.yaml"))
SECONDS = 5.0
MEMORY_KIB = 2**20
BYTES = 2**33
"""Address space of a worker beyond what it has."""

TOKENS = [
    *(
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "\n",
        "&a ",
        "*a",
        "!!python/object:os.system ",
        "<<: ",
        "'",
        '"',
        "|",
        "#",
    ),
    *(
        "1e400",
        ".nan",
        "-1",
        "0",
        "4611686018427387904",
        "9" * 120,
        "true",
        "null",
        "~",
        "a{1000000000}",
        "(a+)+b",
    ),
    *(
        "\x1b[31m",
        "\x00",
        "\u202e",
        "\u2028",
        "\ud7ff",
        "../../../etc/passwd",
        "/dev/zero",
        "type: ",
        "extends: r.yaml",
    ),
    *("depth: 100000", "dim: 10000000", "epochs: 1000000000000", "lengths: [1, 1000000000]", "seeds: 1000"),
]


def mutated(text: str, chance: random.Random) -> str:
    """Return a text with a few of its parts removed, repeated, exchanged or replaced."""
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 1, 3, 10, 40]))
        other = chance.randrange(len(text) + 1)
        piece = chance.choice([chance.choice(TOKENS), text[other : other + 20], "", text[start:end] * 2])
        text = text[:start] + piece + text[end:]
    return text


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """Return a file with bits turned, and sometimes cut, doubled or filled."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if data:
            data[chance.randrange(min(len(data), chance.choice([64, 512, len(data)])))] = chance.randrange(
                256
            )
    if chance.random() < 0.2:
        del data[chance.randrange(len(data) + 1) :]
    return bytes(data * 2 if chance.random() < 0.05 else data)


def check_output(text: str) -> None:
    """Raise if a terminal would not show the text as it is, or it names a mistake of ours."""
    odd = [c for c in text if c != "\n" and (unicodedata.category(c)[0] == "C" or c in "\u2028\u2029")]
    assert odd == [], f"control characters {odd[:3]!r}"
    assert "Traceback" not in text, text
    assert "internal error" not in text, text


def invoke(*words: str) -> str:
    """Run a verb and return its errors."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code in {0, 1, 2}, (result.exit_code, result.output, result.exception)
    check_output(result.output)
    return result.stderr if result.exit_code else ""


def recipe_case(folder: Path, chance: random.Random) -> None:
    """Validate a mutated recipe; every error has a position."""
    path = folder / "r.yaml"
    text = mutated(chance.choice(SHIPPED).read_text(encoding="utf-8"), chance)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    errors = invoke("validate", str(path), *chance.choice([[], ["--untrusted"]]))
    if re.search(r"\[MIM-[CR]\d{3}\]", errors):
        assert re.search(r"r\.yaml(:\d+:\d+)?: ", errors), errors


def override_case(folder: Path, chance: random.Random) -> None:
    """Validate a recipe with a mutated override."""
    paths = [
        "train.epochs",
        "model.dim",
        "seeds",
        "arms.default.init",
        "data.type",
        "model.type",
        "study.metric",
    ]
    (folder / "r.yaml").write_text(
        (RECIPES / "quickstart.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    text = f"{chance.choice(paths)}={chance.choice([*TOKENS, '5', 'convmixer', '{}'])}"
    changed = mutated(text, chance).replace("\x00", "")
    invoke("validate", str(folder / "r.yaml"), f"--set={changed}")


def checkpoint_case(folder: Path, chance: random.Random) -> None:
    """Load a damaged checkpoint."""
    model = build(ConvMixer(dim=4, depth=1), in_channels=1, num_classes=2)
    path, state = folder / "w.pt", model.state_dict()
    odd = {0: 1, "a": state, "sparse": torch.eye(3).to_sparse(), "model": {"x": [1]}}
    if chance.random() < 0.5:
        torch.save(state | (odd if chance.random() < 0.3 else {}), path)
    else:
        save_file(state, path)
    path.write_bytes(mutated_bytes(path.read_bytes(), chance))
    try:
        load_weights(model, path)
    except UserError as error:
        assert error.code  # noqa: PT017 - any of them


def covariance_case(folder: Path, chance: random.Random) -> None:
    """Show a damaged covariance file."""
    geometry = Geometry(1, 4, (3, 3), (1, 1))
    layers = tuple(
        Harvested(name, "conv", 0.0, geometry, closed_form((3, 3), sigma))
        for name, sigma in (("a", 0.4), ("b\x1b\u202e", 0.5))
    )
    path = folder / "c.safetensors"
    save_harvest(path, Harvest("a", "nfm", layers, spatial=True))
    content = path.read_bytes()
    if chance.random() < 0.7:  # a header of the same length
        head = int.from_bytes(content[:8], "little")
        header = mutated(content[8 : 8 + head].decode("utf-8"), chance).encode("utf-8", "replace")
        content = content[:8] + header[:head].ljust(head) + content[8 + head :]
    else:
        content = mutated_bytes(content, chance)
    path.write_bytes(content)
    invoke("show", str(path))


def plan_case(folder: Path, chance: random.Random) -> None:
    """Plan a small recipe with some lines of others in it."""
    path = folder / "r.yaml"
    lines = (RECIPES / "quickstart.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    others = chance.choice(SHIPPED).read_text(encoding="utf-8").splitlines(keepends=True)
    for _ in range(chance.randint(0, 2)):
        lines[chance.randrange(len(lines))] = chance.choice(others)
    path.write_text(mutated("".join(lines), chance) if chance.random() < 0.5 else "".join(lines))
    invoke("plan", str(path), "--root", str(folder))


def sync_case(folder: Path, chance: random.Random) -> None:
    """Copy a tampered study into a store."""
    template = folder.parent / "mlflow.db"
    if template.exists():
        shutil.copy(template, folder)
    invoke("sync", str(tampered_study(folder, chance)), "--root", str(folder))


def study_case(folder: Path, chance: random.Random) -> None:
    """Compare a tampered study."""
    invoke("compare", str(tampered_study(folder, chance)))


def tampered_study(folder: Path, chance: random.Random) -> Path:
    """Return a study in which one file was changed."""
    study = folder / "studies" / "x" / "1"
    for arm in ("a", "b"):
        with Journal(study / arm / "seed-0" / "journal.jsonl") as journal:
            journal.write("start")
            journal.write("epoch", epoch=1, metrics={"test/acc": 0.5})
            journal.write("end", status="FINISHED", reason=None, seconds=1.0)
    record = {"arms": ["a", "b"], "seeds": [0], "baseline": "a", "metric": "test/acc"}
    (study / "study.json").write_text(json.dumps(record))
    path = chance.choice([study / "study.json", study / "a" / "seed-0" / "journal.jsonl"])
    path.write_bytes(mutated(path.read_text(), chance).encode("utf-8", "replace"))
    if chance.random() < 0.3:
        (study / "b" / "link").symlink_to(chance.choice(["/etc/passwd", "link", "../a"]))
    return study


def picture_case(folder: Path, chance: random.Random) -> None:
    """Load a folder with damaged pictures."""
    for name in ("a", "b"):
        (folder / "p" / name).mkdir(parents=True)
        for number in range(2):
            path = (
                folder
                / "p"
                / name
                / f"{number}.{chance.choice(['png', 'jpg', 'gif', 'bmp', 'tiff', 'webp'])}"
            )
            Image.new("RGB", (8, 8), (number, 9, 9)).save(path)
            if chance.random() < 0.5:
                path.write_bytes(mutated_bytes(path.read_bytes(), chance))
    try:
        load_dataset(ImageFolder(root=str(folder), path="p", image_size=8))
    except UserError as error:
        assert error.code  # noqa: PT017 - any of them


CASES: dict[str, tuple[Callable[[Path, random.Random], None], int]] = {
    "recipes": (recipe_case, 1000),
    "overrides": (override_case, 500),
    "checkpoints": (checkpoint_case, 300),
    "covariances": (covariance_case, 300),
    "studies": (study_case, 300),
    "plans": (plan_case, 100),
    "syncs": (sync_case, 40),
    "pictures": (picture_case, 100),
}


def canary_case(folder: Path, _chance: random.Random) -> None:
    """Do what no case may do."""
    (folder.parent.parent / "elsewhere").write_text("x")
    subprocess.run(["true"], check=True)
    (folder / "code.py").write_text("")
    exec(compile("1", folder / "code.py", "exec"))  # noqa: S102


def work(name: str, seeds: range, folder: Path, failures: Any) -> None:
    """Run cases in this process; report what fails, by its seed."""
    # The first case loads libraries, which may look for programs and write caches.
    tempfile.tempdir = str(folder)
    watch: Watch | None = None
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    for number in seeds:
        here = folder / str(number)
        here.mkdir()
        if number > seeds.start and watch is None:
            watch = Watch(folder)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            case = canary_case if name == "canary" else CASES[name][0]
            case(here, random.Random(f"{name} {number}"))
        except BaseException as error:  # noqa: BLE001 - all of them are reported
            failures.put(f"{name} {number}: {type(error).__name__}: {str(error)[:600]}")
        seconds, after = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if number > seeds.start and (seconds > SECONDS or after - before > MEMORY_KIB):
            failures.put(f"{name} {number}: {seconds:.1f} s, {(after - before) >> 10} MiB")
        while watch is not None and watch.found:
            failures.put(f"{name} {number}: {watch.found.pop(0)}")
    failures.put(None)


def run_cases(name: str, count: int, folder: Path) -> list[str]:
    """Return the failures of so many cases, and that of their process if it died."""
    context = multiprocessing.get_context("forkserver")  # imports this file once, not for each process
    context.set_forkserver_preload([__name__])
    failures = context.Queue()
    process = context.Process(target=work, args=(name, range(count), folder, failures))
    process.start()
    found: list[str] = []
    try:
        while (failure := failures.get(timeout=280)) is not None:
            found.append(failure)
    finally:
        process.join(20)
        process.kill()
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_many(name: str, tmp_path: Path, empty_store: Callable[[Path], Path]) -> None:
    """All of the cases."""
    inside = empty_store(tmp_path / "cases")
    assert run_cases(name, CASES[name][1], inside) == []
    assert list(tmp_path.iterdir()) == [inside]


@pytest.mark.slow
def test_the_watch_sees(tmp_path: Path) -> None:
    """A program, a file elsewhere and code of the input are reported."""
    inside = tmp_path / "cases"
    inside.mkdir()
    found = run_cases("canary", 2, inside)
    assert [failure.split()[2] for failure in found] == ["open", "subprocess.Popen", "exec"]


@pytest.mark.parametrize("name", [name for name in CASES if name not in {"plans", "syncs"}])
def test_a_few(name: str, tmp_path: Path) -> None:
    """A small part of them, in this process."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        CASES[name][0](tmp_path / str(number), random.Random(f"{name} {number}"))
