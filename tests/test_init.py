"""The public surface: names, types, and an import that costs nothing."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

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
    if name in mimetic._HOME:
        assert found is getattr(import_module(mimetic._HOME[name]), name)


def test_the_calls_of_the_manual() -> None:
    """What the design promises."""
    assert {"load", "plan", "initialize", "run", "Recipe", "Plan", "RecipeError"} <= set(mimetic.__all__)
    assert set(mimetic._HOME) <= set(mimetic.__all__)


def test_no_call_has_the_name_of_a_room() -> None:
    """Importing a sub-package binds its name in the parent, over a call that has the same."""
    rooms = {found.name for found in iter_modules(mimetic.__path__)}
    assert "recipe" in rooms
    assert not rooms & set(mimetic.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    """As of any module, so that `hasattr` works."""
    with pytest.raises(AttributeError, match="module 'mimetic' has no attribute 'nothing'"):
        _ = mimetic.nothing
    assert not hasattr(mimetic, "nothing")


def test_version_is_stated_once() -> None:
    """The project's metadata read the version from the package."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "mimetic/__init__.py"


def test_importing_and_loading_need_no_torch() -> None:
    """`import mimetic`, and reading a recipe, import neither torch nor MLflow nor numpy."""
    code = (
        "import sys, mimetic\n"
        "mimetic.load({'recipe': 1, 'init': [{'match': 'a', 'init': 'zeros'}]})\n"
        "print(sorted({'torch', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    assert printed(code) == "[]\n"
