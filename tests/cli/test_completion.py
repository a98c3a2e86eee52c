"""Shells complete verbs, options and values."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mimetic.cli import VERBS, app

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete() -> Complete:
    """Return a function that completes the last word of a line, as bash asks for it."""

    def run(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        env = {"_MIMETIC_COMPLETE": "complete_bash", **words}
        result = CliRunner().invoke(app, [], prog_name="mimetic", env=env)
        assert result.exit_code == 0, result.output
        return result.stdout.split()

    return run


def test_verbs_and_options(complete: Complete) -> None:
    """Every verb, and the options of one."""
    assert complete("mimetic ") == [verb.__name__.rpartition(".")[2] for verb in VERBS]
    assert complete("mimetic plan x --mo") == ["--model"]


def test_values(complete: Complete, tiny: Path, quickstart: Path) -> None:
    """Arms of the recipe on the line, models, data, studies, what there is to list."""
    assert complete(f"mimetic plan {tiny} --arm ") == ["default", "frozen"]
    assert complete(f"mimetic explain {tiny} blocks.0 --arm f") == ["frozen"]
    assert complete("mimetic plan x --model ti") == ["timm:"]
    assert complete("mimetic harvest --data digi") == ["digits"]
    assert complete(f"mimetic compare --root {quickstart} ") == ["quickstart"]
    assert complete("mimetic new x --from quick") == ["quickstart"]
    assert complete("mimetic ls match") == ["match", "match_default"]


def test_nothing_where_something_is_wrong(complete: Complete, tmp_path: Path) -> None:
    """A broken or missing recipe completes nothing, and says nothing."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("recipe: [", encoding="utf-8")
    assert complete(f"mimetic plan {broken} --arm ") == []
    assert complete("mimetic plan missing.yaml --arm ") == []
