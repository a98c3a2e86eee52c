"""A plug-in that raises anywhere ends in one message that names it, exit code 1 and no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SECTIONS = '''\
from pydantic import model_validator
from mimetic.covariance.config import Measured
from mimetic.data.config import ImageData
from mimetic.initializers.config import Init
from mimetic.models.config import Model

class BadValidator(Init, type="bad_validator", impl="broken_plugin.work:fail"):
    """Raise while it is validated."""

    @model_validator(mode="after")
    def validate_after(self):
        raise KeyError("no key")

class BadInit(Init, type="bad_init", impl="broken_plugin.work:fail"):
    """Raise while it is planned."""

class QuitInit(Init, type="quit_init", impl="broken_plugin.work:leave"):
    """End the interpreter while it is planned."""

class BadDraw(Init, type="bad_draw", impl="broken_plugin.work:draw"):
    """Raise while it is drawn."""

class BadMeasure(Measured, type="bad_measure", measure="broken_plugin.work:fail"):
    """Raise while it is measured."""

class BadModel(Model, type="bad_model", impl="broken_plugin.work:fail"):
    """Raise while it is built."""

class QuitModel(Model, type="quit_model", impl="broken_plugin.work:leave"):
    """End the interpreter while it is built."""

class BadData(ImageData, type="bad_data", impl="broken_plugin.work:fail"):
    """Raise when its shape is read."""

    def native_shape(self):
        return self.missing_attribute
'''
WORK = """\
import sys
from mimetic.initializers.distributions import Distribution, independent, per_tensor

def fail(spec, *_):
    raise RuntimeError("the plug-in failed")

def leave(spec, *_):
    sys.exit(0)

@per_tensor
def draw(spec, shape):
    return Distribution(fail, independent(shape, 1.0), elementwise=True)
"""
FILES = {
    "broken_plugin/__init__.py": "",
    "broken_plugin/config.py": SECTIONS,
    "broken_plugin/work.py": WORK,
    "broken_plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n",
    "broken_plugin-1.0.dist-info/entry_points.txt": "[mimetic.components]\nbroken = broken_plugin.config\n",
    "recipe.yaml": """\
recipe: 1
name: broken
model: {type: plain_cnn, widths: [2, 2]}
data: {type: digits, train_size: 32, test_size: 8}
train: {epochs: 1, batch_size: 16}
seeds: 1
arms: {source: {}, broken: {}}
""",
}
RULE = "arms.broken.init=[{id: r, match: {kind: conv}, %s}]"
PLANNED = {  # what to set, the component that the message names, and where its code is
    "bad_validator": (RULE % "init: bad_validator", "init", "config.py"),
    "bad_init": (RULE % "init: bad_init", "init", "work.py"),
    "quit_init": (RULE % "init: quit_init", "init", "work.py"),
    "bad_model": ("model={type: bad_model}", "model", "work.py"),
    "quit_model": ("model={type: quit_model}", "model", "work.py"),
    "bad_data": ("data={type: bad_data}", "data", "config.py"),
}
TRAINED = {
    "bad_draw": (RULE % "init: bad_draw", "plug-in", "work.py"),  # a function that its component returned
    "bad_measure": (RULE % "covariance: {type: bad_measure, from: {arm: source}}", "covariance", "work.py"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the recipe and, as an installer would write it, the plug-in."""
    made = tmp_path_factory.mktemp("broken")
    for name, text in FILES.items():
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(text)
    return made


def python(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with the plug-in installed."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)}
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=folder, timeout=240
    )


def check_named(message: str, name: str, family: str, file: str) -> None:
    """Check that a message names the plug-in, the component, the place and the exception."""
    component = family if family == "plug-in" else f"{family} `{name}` of plug-in"
    raised = "SystemExit" if name.startswith("quit") else "Error"
    for part in (f"{component} `broken`", f"broken_plugin/{file}:", raised):
        assert part in message, (part, message)
    assert "Traceback" not in message
    assert "internal error" not in message


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_failure_while_planning(folder: Path) -> None:
    """Exit code 1, and the traceback in a file, wherever a plug-in raises or ends the interpreter."""
    verbs = [["plan", "recipe.yaml", "--set", value] for value, _, _ in PLANNED.values()]
    code = f"""
import json
from typer.testing import CliRunner
from mimetic.cli import app
results = [CliRunner().invoke(app, words) for words in {verbs!r}]
print(json.dumps([(result.exit_code, result.stdout, result.stderr) for result in results]))
"""
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for (name, (_, family, file)), (exit_code, out, err) in zip(PLANNED.items(), results, strict=True):
        assert (exit_code, out) == (1, ""), (name, out, err)
        assert "MIM-C054" in err
        check_named(err, name, family, file)
    tracebacks = list(folder.glob("mimetic-*.txt"))
    assert len(tracebacks) == len(PLANNED)
    assert all("broken_plugin" in path.read_text() for path in tracebacks)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize("name", TRAINED)
def test_failure_in_a_trial(folder: Path, tmp_path: Path, name: str) -> None:
    """The trial fails, its journal names the plug-in, and the traceback is beside it."""
    value, family, file = TRAINED[name]
    words = ["run", "recipe.yaml", "--root", str(tmp_path), "--offline", "--workers", "1", "--set", value]
    done = python(folder, "-m", "mimetic", *words)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (journal,) = tmp_path.glob("studies/*/*/broken/seed-0/journal.jsonl")
    end = json.loads(journal.read_text().splitlines()[-1])
    assert end["status"] == "FAILED"
    check_named(end["reason"], name, family, file)
    assert "broken_plugin" in (journal.parent / "error.txt").read_text()
