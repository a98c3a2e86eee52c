"""What the verbs share: the console, and the options that several of them take."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140
"""Columns where the output is no terminal, so that a table in a file is not cut."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="Path of the recipe.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value, e.g. train.epochs=5; may be repeated."
    ),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Let a `type: python` model run its code.")]
Root = Annotated[Path, typer.Option("--root", help="Folder of the runs.")]
ArmName = Annotated[str | None, typer.Option("--arm", help="The arm; all of them unless given.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="SOURCE:NAME", help="Another model, e.g. timm:convmixer_768_32."),
]


def console(*, stderr: bool = False) -> "Console":
    """Return a console that does not cut tables where nobody looks at a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False)


def example(text: str) -> str:
    """Return the worked example that ends a verb's help; its lines are kept as they are."""
    return f"Example:\n\n\b\n{text}"
