"""Nothing that a stranger wrote reaches the terminal as a control character, and no stream is a failure."""

import ast
import io
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import rich.table
import typer
from typer.testing import CliRunner

import mimetic
from mimetic.cli.console import console, echo, guarded, print_table
from mimetic.covariance import store
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.printable import plain_markdown, printable
from mimetic.tables import Table

SOME = "".join(map(chr, (*range(0x20), 0x7F, 0x85, 0x9B, 0x200F, 0x202E, 0x2028, 0x2066, 0xD800, 0xE0001)))
"""Control characters of several kinds, and half of a surrogate pair."""


def is_safe(text: str) -> bool:
    """Return whether a terminal shows a text as it is, line by line."""
    return all(c == "\n" or (unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029") for c in text)


@pytest.mark.parametrize("end", [0x3000, pytest.param(0x110000, marks=pytest.mark.slow)])
def test_every_character(end: int) -> None:
    """What is printed is plain, and plain text is not changed."""
    everything = [chr(code) for code in range(end)]
    safe = "".join(filter(is_safe, everything))
    assert is_safe(printable("".join(everything)))
    assert printable(safe) == safe
    assert printable("déjà\u00a0vu 模型 🙂\n") == "déjà\u00a0vu 模型 🙂\n"


def test_every_way_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages, texts, tables and errors; a cell stays on its line."""
    table = rich.table.Table()
    table.add_column(SOME)
    table.add_row(SOME)
    for out in (console(), console(stderr=True)):
        out.print(SOME, soft_wrap=True)
        out.print(table)
        print_table(out, Table(SOME, (SOME,), ((SOME,),)))
    echo(SOME)
    echo(SOME, err=True)
    printed = "".join(capsys.readouterr())

    assert r"\x1b" in printed
    assert is_safe(printed)
    lines = [line for line in printed.splitlines() if line.startswith(r"\x00\x01")]
    assert any(r"\t\n\x0b" in line for line in lines)


def test_errors() -> None:
    """The message of an error may name anything."""
    app = typer.Typer()

    def verb() -> None:
        raise UserError(f"`{SOME}` is wrong", code="MIM-X998")

    app.command()(guarded(verb))
    result = CliRunner().invoke(app, [])

    assert result.exit_code == 2
    assert is_safe(result.output)
    assert "[MIM-X998]" in result.output


def test_every_verb_prints_through_the_console() -> None:
    """No other place of the command line writes to a stream."""
    package = Path(mimetic.__file__).parent / "cli"
    direct = [
        f"{path.name}:{node.lineno}"
        for path in package.glob("*.py")
        if path.name != "console.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "typer.echo", "typer.secho", "sys.stdout.write", "Console"}
        and "__version__" not in ast.unparse(node)
    ]
    assert direct == []


def test_layer_names_of_a_covariance_file(tmp_path: Path) -> None:
    """`mimetic show` prints the names in a file from a stranger."""
    geometry = Geometry(1, 4, (3, 3), (1, 1), groups=1)
    layer = Harvested("stem\x1b]0;owned\x07\u202e", "conv\x1b[31m", 0.0, geometry, closed_form((3, 3), 0.4))
    store.save_harvest(tmp_path / "a.safetensors", Harvest("me\x9b2J", "nfm\x00", (layer,), spatial=True))

    result = CliRunner().invoke(mimetic.cli.app, ["show", str(tmp_path / "a.safetensors")])

    assert result.exit_code == 0, result.output
    assert is_safe(result.output)
    assert r"\x1b" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_closed_streams(closed: str, tiny: Path, surroundings: dict[str, str]) -> None:
    """A parent may close streams: the verb works, and fails as it would."""
    words = [sys.executable, "-P", "-m", "mimetic", "validate"]
    line = f'"$0" "$@" {" ".join(f"{number}>&-" for number in closed.split())}'
    folder = Path(mimetic.__file__).parents[1]

    def run(recipe: str) -> int:
        command = ["sh", "-c", line, *words, recipe]
        return subprocess.run(command, timeout=60, cwd=folder, check=False, env=surroundings).returncode

    assert (run(str(tiny)), run(f"{tiny}.missing")) == (0, 2)


def test_narrow_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of ASCII shows other characters as escapes."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    mimetic.cli.console.prepare_streams()

    echo("96.8 ± 0.4")
    console().print("─ ✓", soft_wrap=True)
    sys.stdout.flush()

    assert raw.getvalue() == b"96.8 \\xb1 0.4\n\\u2500 \\u2713\n"


def test_markup_is_shown_as_written() -> None:
    """A description neither links nor runs anything on a page."""
    text = plain_markdown("<img src=x onerror=alert(1)> [a](javascript:b) **c** `d` \x1b")

    assert "<" not in text
    assert r"\[a\](javascript:b)" in text
    assert r"\\x1b" in text
