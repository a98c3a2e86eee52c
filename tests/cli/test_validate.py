"""`mimetic validate`: recipes, folders, mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Call = Callable[..., Result]


def test_a_good_recipe(tiny: Path, call: Call) -> None:
    """One line with the path and the size of the study."""
    result = call("validate", tiny)
    assert (result.exit_code, result.output) == (0, f"{tiny}: ok, 2 arms × 1 seed\n")


def test_shipped_recipes_are_good(recipes: Path, call: Call) -> None:
    """A folder stands for the recipes below it."""
    result = call("validate", recipes)
    assert result.exit_code == 0
    assert len(list(recipes.rglob("*.yaml"))) == len(result.stdout.splitlines())


def test_all_mistakes_of_all_recipes_at_once(tiny: Path, tmp_path: Path, call: Call) -> None:
    """Good ones are told on stdout, wrong ones on stderr with place, caret and repair."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("recipe: 1\ntrian: {epochs: 1}\n", encoding="utf-8")
    result = call("validate", tiny, wrong, tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert result.stdout == f"{tiny}: ok, 2 arms × 1 seed\n"
    assert result.stderr == (
        f"{wrong}:2:1: trian: unknown key `trian` [MIM-R001]\n"
        "     2 | trian: {epochs: 1}\n"
        "       | ^\n"
        "    hint: did you mean `train`?\n"
        f"{tmp_path / 'none.yaml'}: there is no such file [MIM-C001]\n"
        f"    hint: did you mean `{wrong}`?\n"
    )


@pytest.mark.parametrize("name", [".venv", ".git"])
def test_hidden_folders_hold_no_recipes(name: str, tiny: Path, call: Call) -> None:
    """YAML of other programs below a hidden folder is not read; `.yml` is a recipe, too."""
    other = tiny.parent / name / "other.yaml"
    other.parent.mkdir()
    other.write_text("not: a recipe\n", encoding="utf-8")
    tiny.rename(tiny.with_suffix(".yml"))
    result = call("validate", tiny.parent)
    assert (result.exit_code, result.output) == (0, f"{tiny.with_suffix('.yml')}: ok, 2 arms × 1 seed\n")


def test_a_folder_without_recipes(tmp_path: Path, call: Call) -> None:
    """Nothing to check is a mistake, not a success."""
    result = call("validate", tmp_path)
    assert result.exit_code == 2
    assert "[MIM-X080]" in result.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\x00\x01\xff binary", "is not UTF-8"),
        (b"- 1\n- 2\n", ":1:1"),
    ],
)
def test_files_that_are_no_recipes(content: bytes, said: str, tmp_path: Path, call: Call) -> None:
    """Empty, binary and other files are refused in a sentence."""
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    result = call("validate", path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.epochs=abc", "--set:1:14: train.epochs: expected a whole number, found the text 'abc'"),
        ("train.epoch=3", "did you mean `epochs`?"),
        ("train.epochs", "expected `path=value`"),
        ("arms.frozen.init.filter.freeze=true", "did you mean `filters`?"),
        ("arms.nope.freeze=1", "there is no arm `nope`"),
        ("seeds=[1,2", "MIM-C014"),
    ],
)
def test_wrong_overrides_are_said_as_wrong_lines_are(text: str, said: str, tiny: Path, call: Call) -> None:
    """`--set` is a source of its own, with a place and a repair."""
    result = call("validate", tiny, "--set", text)
    assert result.exit_code == 2
    assert said in result.stderr


def test_overrides_repeat(tiny: Path, call: Call) -> None:
    """Several `--set` hold together; rules are named by id, inherited ones through the arm."""
    words = ["--set", "seeds=[4, 5]", "--set", "arms.frozen.init.filters.scale.gain=0.5"]
    result = call("validate", tiny, *words)
    assert (result.exit_code, result.output) == (0, f"{tiny}: ok, 2 arms × 2 seeds\n")
