"""Exit codes, and no traceback whatever happens."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mimetic.cli.console import guarded
from mimetic.errors import RunError, UserError

Variables = dict[str, str]


def ended(error: BaseException) -> tuple[int, str, str]:
    """Return exit code, output and errors of a verb that raises."""
    app = typer.Typer(pretty_exceptions_enable=False)

    def verb() -> None:
        raise error

    app.command()(guarded(verb))
    result = CliRunner().invoke(app, [])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("a.yaml: no"), 2, "a.yaml: no\n"),
        (RunError("the disk is full"), 1, "the disk is full\n"),
        (UserError("no\n    hint: yes", code="MIM-X099"), 2, "no [MIM-X099]\n    hint: yes\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: Permission denied [MIM-X001]\n"),
        (
            OSError(errno.EXDEV, "Cross-device link", "/x", None, "/y"),
            2,
            "/x → /y: Cross-device link [MIM-X001]\n",
        ),
        (OSError("odd"), 2, "system error: odd [MIM-X001]\n"),
        (BrokenPipeError(), 0, ""),
        (typer.Exit(7), 7, ""),
    ],
)
def test_failures_become_a_sentence_and_a_code(error: BaseException, code: int, said: str) -> None:
    """Messages go to stderr; nothing is printed where others read."""
    assert ended(error) == (code, "", said)


def test_a_mistake_of_ours_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence for the user, and the traceback for those who mend it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, _, said = ended(ZeroDivisionError("division\nby zero"))
    (kept,) = tmp_path.glob("mimetic-*.txt")
    assert code == 1
    assert said == (
        "internal error: ZeroDivisionError: division by zero (please report) [MIM-X000]\n"
        f"    hint: the traceback is in {kept} (MIMETIC_DEBUG=1 shows it here)\n"
    )
    assert "Traceback" in kept.read_text(encoding="utf-8")


def test_developers_see_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """MIMETIC_DEBUG=1 lets the exception through."""
    monkeypatch.setenv("MIMETIC_DEBUG", "1")
    app = typer.Typer(pretty_exceptions_enable=False)

    def verb() -> None:
        raise UserError("no")

    app.command()(guarded(verb))
    assert isinstance(CliRunner().invoke(app, []).exception, UserError)


@pytest.mark.parametrize(
    "words", [["ls"], ["schema"], pytest.param(["plan", "RECIPE", "--all"], marks=pytest.mark.slow)]
)
def test_a_reader_that_goes_away_is_no_failure(words: list[str], tiny: Path, surroundings: Variables) -> None:
    """`mimetic ls | head -0` exits with 0 and says nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mimetic", *[str(tiny) if word == "RECIPE" else word for word in words]],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=surroundings,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
