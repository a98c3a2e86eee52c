"""The example verb of CONTRIBUTING.md works as it is printed there."""

from typing import Annotated

import typer
from typer.testing import CliRunner

from mimetic.cli.console import example, guarded
from mimetic.errors import UserError

EPILOG = example("""  $ mimetic hello Ada
  Hello, Ada.""")


def hello(name: Annotated[str, typer.Argument(help="Whom to greet.")]) -> None:
    """Greet somebody."""
    if not name.isalpha():
        raise UserError(f"`{name}` is not a name; use letters only", code="MIM-X999")
    typer.echo(f"Hello, {name}.")


def test_a_verb_is_a_function() -> None:
    """It prints, and its errors end in a message and an exit code."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command(epilog=EPILOG)(guarded(hello))

    good = CliRunner().invoke(app, ["hello", "Ada"])
    bad = CliRunner().invoke(app, ["hello", "R2D2"])

    assert (good.exit_code, good.output) == (0, "Hello, Ada.\n")
    assert (bad.exit_code, "[MIM-X999]" in bad.output) == (2, True)
