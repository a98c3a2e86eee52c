"""An installed plug-in of six components works everywhere a built-in component does.

The package in `plugin/` has an entry point, as an installer would write it; each test runs Python with it on
the path. This process does not find it: no test is in that folder. Nothing else in the tree knows its names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forks import in_forks

ROOT = Path(__file__).parents[1]
HERE = ROOT / "tests" / "plugin"
TYPES = {
    "init": "laplace",
    "covariance": "exponential",
    "data": "stripes",
    "model": "tiny_conv",
    "optimizer": "sign_sgd",
    "executor": "inline",
}


def python(*words: str, cwd: Path = ROOT) -> str:
    """Run Python with the plug-in installed, and return its standard output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_component_takes_two_product_files() -> None:
    """Each type is one section in config.py and one function in a file of its family."""
    sections = (HERE / "mimetic_example" / "config.py").read_text()
    assert all(f'type="{name}"' in sections for name in TYPES.values())
    others = sorted(path.stem for path in (HERE / "mimetic_example").glob("*.py"))
    assert others == [
        "__init__",
        "config",
        "covariances",
        "data",
        "executors",
        "initializers",
        "models",
        "optimizers",
    ]


ORDERS = (
    "import mimetic_example.initializers",
    "",
    "import mimetic_example.config",
    "import mimetic.initializers.univariate",
    "import mimetic.recipe.load",
)
USE = """
import mimetic
model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 2))
rules = [
    {"match": "0", "covariance": {"type": "exponential", "length": 2.0}},
    {"match": "1", "init": "laplace"},
]
plan = mimetic.initialize(model, {"recipe": 1, "init": rules}, seed=0)
print(sorted(entry.initializer for entry in plan.entries if entry.rule))
"""


@pytest.mark.slow
def test_import_order() -> None:
    """`mimetic.initialize` finds the plug-in whichever module was imported first."""
    out = python("-c", in_forks([f"{first}\n{USE}" for first in ORDERS]))
    assert out.splitlines() == ["['gaussian', 'laplace']"] * len(ORDERS)


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    """Validated, listed and completed without torch, and planned; the script of CONTRIBUTING.md runs."""
    recipe = str(HERE / "recipe.yaml")
    lists = [["ls", family] for family in TYPES]
    verbs = [["validate", recipe], ["schema"], *lists, ["plan", recipe, "--arm", "plugin"]]
    code = f"""
import json, sys
from typer.testing import CliRunner
from mimetic.cli import app
print(json.dumps([
    (result.exit_code, result.output, "torch" in sys.modules)
    for words in {verbs!r}
    for result in [CliRunner().invoke(app, words)]
]))
import runpy
runpy.run_path({str(HERE / "example_of_use.py")!r}, run_name="__main__")
"""
    codes, outputs, heavy = zip(*json.loads(python("-c", code, cwd=tmp_path)), strict=True)
    assert codes == (0,) * len(verbs), outputs
    assert heavy == (*(False,) * (len(verbs) - 1), True)
    _, schema, *listed, planned = outputs
    for name, listing in zip(TYPES.values(), listed, strict=True):
        assert name in listing
        assert f'"{name}"' in json.dumps(json.loads(schema))
    assert "laplace" in planned


@pytest.mark.slow  # what the plug-in offers is used by the fast tests above
@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize("executor", ["pool", "inline"])
def test_study(tmp_path: Path, executor: str) -> None:
    """A study trains the model on the data with the optimizer, in workers and in this process."""
    choice = f"study.executor={executor}"
    words = [
        str(HERE / "recipe.yaml"),
        "--offline",
        "--root",
        str(tmp_path),
        "--set",
        choice,
        "--workers",
        "1",
    ]
    out = python("-m", "mimetic", "run", *words)
    assert "plugin" in out
    journals = sorted(tmp_path.glob("studies/plugin/*/*/seed-0/journal.jsonl"))
    ends = [json.loads(path.read_text().splitlines()[-1]) for path in journals]
    assert [end["status"] for end in ends] == ["FINISHED", "FINISHED"], ends


@pytest.mark.slow
def test_statistics() -> None:
    """The statistical tests of registered components test the plug-in's without an edit."""
    out = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA",
        "tests/initializers/test_registry.py", "-k", "laplace or exponential",
    )  # fmt: skip
    assert "laplace" in out
    assert "exponential" in out
    assert out.count("PASSED") > len(TYPES)
