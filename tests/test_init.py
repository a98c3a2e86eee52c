"""The public surface: names, types, and an import that costs nothing."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import mimetic


def printed(code: str) -> str:
    """Return what a new interpreter prints."""
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout


@pytest.mark.parametrize("name", mimetic.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Each name leads to the object of its home, and is listed by `dir`."""
    found = getattr(mimetic, name)
    assert found is not None
    assert name in dir(mimetic)
    if name in mimetic._HOME and name != "plan":  # a call and a package
        assert found is getattr(import_module(mimetic._HOME[name]), name)


def test_the_calls_of_the_manual() -> None:
    """What the design promises."""
    assert {"load", "plan", "initialize", "run", "Recipe", "Plan", "RecipeError"} <= set(mimetic.__all__)
    assert set(mimetic._HOME) <= set(mimetic.__all__)


def test_plan_is_a_call_and_a_package() -> None:
    """`mimetic.plan(…)` works before and after the package of that name was imported."""
    code = (
        "import mimetic\n"
        "from torch import nn\n"
        "recipe = {'recipe': 1, 'init': [{'match': {'kind': 'linear'}, 'init': 'zeros'}]}\n"
        "first = mimetic.plan(recipe, nn.Linear(2, 2))\n"
        "second = mimetic.plan(recipe, nn.Linear(2, 2))\n"
        "import mimetic.plan.resolve\n"
        "print(first.hash == second.hash == mimetic.plan(recipe, nn.Linear(2, 2), seed=0).hash)"
    )
    assert printed(code) == "True\n"


def test_unknown_names_are_attribute_errors() -> None:
    """As of any module, so that `hasattr` works."""
    with pytest.raises(AttributeError, match="module 'mimetic' has no attribute 'nothing'"):
        _ = mimetic.nothing
    assert not hasattr(mimetic, "nothing")


def test_version_is_the_projects() -> None:
    """One version, in the package and in pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == mimetic.__version__


def test_importing_and_loading_need_no_torch() -> None:
    """`import mimetic`, and reading a recipe, import neither torch nor MLflow nor numpy."""
    code = (
        "import sys, mimetic\n"
        "mimetic.load({'recipe': 1, 'init': [{'match': 'a', 'init': 'zeros'}]})\n"
        "print(sorted({'torch', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    assert printed(code) == "[]\n"
