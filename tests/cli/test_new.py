"""`mimetic new`: copies that work where they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.recipe.load import load
from mimetic.recipe.shipped import shipped

Call = Callable[..., Result]


def test_copy_is_a_recipe_of_its_own(tmp_path: Path, call: Call) -> None:
    """It is called as its file, names itself in its example, and carries no modeline that points nowhere."""
    path = tmp_path / "first.yaml"
    result = call("new", path)
    assert (result.exit_code, result.output) == (
        0,
        f"{path}: copied from quickstart; next: mimetic plan {path}\n",
    )
    text = path.read_text(encoding="utf-8")
    assert load(path).name == "first"
    assert f"#   mimetic run {path}\n" in text
    assert "yaml-language-server" not in text


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_can_be_copied(name: str, tmp_path: Path, call: Call) -> None:
    """Also those that extend another: the copy means what the original means, under its own name."""
    path = tmp_path / "deep" / "copy.yaml"
    assert call("new", path, "--from", name).exit_code == 0
    copy, original = load(path), load(shipped()[name])
    assert copy.name == "copy"
    assert copy.arms == original.arms


def test_nothing_is_overwritten(tiny: Path, call: Call) -> None:
    """A file, a folder and a dangling link stay as they are."""
    before = tiny.read_bytes()
    link = tiny.parent / "link.yaml"
    link.symlink_to(tiny.parent / "nowhere.yaml")
    for path in (tiny, tiny.parent, link):
        result = call("new", path)
        assert result.exit_code == 2
        assert "[MIM-X041]" in result.stderr
    assert tiny.read_bytes() == before
    assert link.is_symlink()


def test_a_name_with_blanks(tmp_path: Path, call: Call) -> None:
    """The recipe's name is made valid, and the command to copy is quoted."""
    path = tmp_path / "my recipe.yaml"
    result = call("new", path)
    assert result.output.endswith(f"next: mimetic plan '{path}'\n")
    assert load(path).name == "my-recipe"


def test_wrong_requests(tmp_path: Path, call: Call) -> None:
    """An unknown recipe is suggested; a place that takes no file is named."""
    result = call("new", tmp_path / "a.yaml", "--from", "quikstart")
    assert (result.exit_code, result.stderr) == (
        2,
        "no shipped recipe is called `quikstart`; did you mean `quickstart`? [MIM-X040]\n",
    )
    result = call("new", "/dev/null/a.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("/dev/null/a.yaml cannot be written (")
