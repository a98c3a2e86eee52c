"""The example verb of CONTRIBUTING.md works as it is printed there."""

from typing import Annotated

import typer
from typer.testing import CliRunner


def hello(name: Annotated[str, typer.Argument(help="Whom to greet.")]) -> None:
    """Greet somebody."""
    typer.echo(f"Hello, {name}.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(short_help="Greet somebody.")(hello)


def test_a_verb_registers_itself() -> None:
    """A verb is a function and `register`."""
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)

    result = CliRunner().invoke(app, ["hello", "mimetic"])

    assert (result.exit_code, result.output) == (0, "Hello, mimetic.\n")
