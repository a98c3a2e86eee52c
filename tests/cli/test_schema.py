"""`mimetic schema`: printed, written, checked."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from mimetic.recipe.json_schema import json_schema

Call = Callable[..., Result]


def test_printed(call: Call) -> None:
    """JSON alone, the library's own."""
    assert json.loads(call("schema").stdout) == json_schema()


def test_written_and_checked(tmp_path: Path, call: Call) -> None:
    """What `--output` writes passes `--check`; anything else fails with the repair."""
    path = tmp_path / "recipe.schema.json"
    assert call("schema", "--output", path).output == ""
    result = call("schema", "--check", path)
    assert (result.exit_code, result.output) == (0, f"{path}: up to date\n")
    path.write_text("{}", encoding="utf-8")
    result = call("schema", "--check", path)
    assert result.exit_code == 2
    assert "[MIM-X060]" in result.stderr
    assert call("schema", "--check", tmp_path / "none.json").exit_code == 2


def test_a_place_that_takes_no_file(call: Call) -> None:
    """The place asked for is named, not a temporary file."""
    result = call("schema", "--output", "/dev/null/x.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("/dev/null/x.json cannot be written (")
