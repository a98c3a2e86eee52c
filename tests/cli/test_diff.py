"""`mimetic diff`: plans, not texts."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Call = Callable[..., Result]


def test_arms_of_one_recipe(tiny: Path, call: Call) -> None:
    """The parameters that differ, under the arms' names, and how many."""
    result = call("diff", f"{tiny}#default", f"{tiny}#frozen")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert next(line.split() for line in lines if "parameter " in line) == [
        "parameter",
        "shape",
        "default",
        "frozen",
    ]
    names = [f"blocks.{block}.spatial.weight" for block in (0, 1)]
    assert [line.split()[0] for line in lines if "spatial" in line] == names
    told = json.loads(call("diff", f"{tiny}#default", f"{tiny}#frozen", "--json").stdout)
    assert told["arms"] == ["default", "frozen"]
    assert [row["parameter"] for row in told["differences"]] == names
    assert lines[-1].startswith("2 of ")
    assert lines[-1].endswith(" parameters differ")


def test_the_same_plan(tiny: Path, call: Call) -> None:
    """Nothing differs, and there is no empty table."""
    result = call("diff", f"{tiny}#frozen", f"{tiny}#frozen")
    assert result.exit_code == 0
    assert result.stdout.startswith("0 of ")


def test_two_recipes(tiny: Path, tmp_path: Path, call: Call) -> None:
    """Texts that mean the same do not differ; arms of one name are told apart by their recipes."""
    other = tmp_path / "other.yaml"
    other.write_text(tiny.read_text(encoding="utf-8").replace("{}", "{init: []}"), encoding="utf-8")
    assert call("diff", f"{tiny}#default", f"{other}#default").stdout.startswith("0 of ")
    changed = tmp_path / "changed.yaml"
    changed.write_text(
        tiny.read_text(encoding="utf-8").replace("covariance: closed_form", "init: orthogonal"),
        encoding="utf-8",
    )
    result = call("diff", f"{tiny}#frozen", f"{changed}#frozen")
    assert "orthogonal" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("2 of ")


def test_a_file_name_with_a_hash(tiny: Path, tmp_path: Path, call: Call) -> None:
    """The last `#` separates the arm; where the whole is a file, nothing does."""
    hash_file = tmp_path / "lr#0.1.yaml"
    hash_file.write_text(tiny.read_text(encoding="utf-8"), encoding="utf-8")
    assert call("diff", f"{tiny}#frozen", f"{hash_file}#frozen").stdout.startswith("0 of ")
    result = call("diff", f"{tiny}#frozen", hash_file)
    assert (result.exit_code, f"{hash_file}#default" in result.stderr) == (2, True)


def test_an_arm_must_be_chosen(tiny: Path, call: Call) -> None:
    """A recipe of several arms lists what to write; an arm that is not there is said."""
    result = call("diff", tiny, tiny)
    assert result.exit_code == 2
    assert f"{tiny}#default, {tiny}#frozen" in result.stderr
    result = call("diff", f"{tiny}#default", f"{tiny}#nope")
    assert result.exit_code == 2
    assert "has no arm `nope`" in result.stderr
