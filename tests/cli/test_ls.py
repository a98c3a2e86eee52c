"""`mimetic ls`: recipes, types, arguments, studies."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.config.registry import families, registered

Call = Callable[..., Result]


def test_everything(tmp_path: Path, call: Call) -> None:
    """Recipes, studies and every type of every family."""
    result = call("ls", "--root", tmp_path)
    assert result.exit_code == 0
    words = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert {"recipes", "quickstart", "cifar10-small"} <= words
    assert f"no studies below {tmp_path}" in result.stdout
    assert {name for family in families() for name in registered(family)} <= words


def test_a_family(call: Call) -> None:
    """Its types alone, each with its first line."""
    lines = call("ls", "schedule").stdout.splitlines()
    assert [lines[0], *(line.split()[0] for line in lines[1:])] == ["schedule", *registered("schedule")]


def test_a_type(call: Call) -> None:
    """Its arguments with their defaults; what must be given is called required."""
    text = call("ls", "timm").stdout
    assert text.startswith("model `timm`: ")
    assert "  name " in text
    assert "(required)" in text


def test_types_of_one_name(call: Call) -> None:
    """A name of several families is shown for each: `constant` is an initializer and a schedule."""
    text = call("ls", "constant").stdout
    assert "init `constant`: " in text
    assert "schedule `constant`: " in text


def test_unknown(call: Call) -> None:
    """A typo gets a suggestion."""
    result = call("ls", "closed_from")
    assert result.exit_code == 2
    assert "nothing is called `closed_from`; did you mean `closed_form`?" in result.stderr


def test_studies(quickstart: Path, call: Call) -> None:
    """One line each; a damaged one hides no other."""
    damaged = quickstart / "studies" / "other" / "20261121-000000"
    damaged.mkdir(parents=True)
    (damaged / "study.json").write_text("{broken", encoding="utf-8")
    result = call("ls", "studies", "--root", quickstart)
    assert result.exit_code == 0
    good = quickstart / "studies" / "quickstart" / "20261121-032523"
    assert f"  {good}  3 arms × 3 seeds" in result.stdout
    assert f"  {damaged / 'study.json'} cannot be read: " in result.stdout


@pytest.mark.parametrize("root", ["/dev/null/x", "none"])
def test_no_studies(root: str, call: Call) -> None:
    """A root that is not there holds none."""
    result = call("ls", "studies", "--root", root)
    assert (result.exit_code, result.output) == (0, f"no studies below {root}\n")
