"""`mimetic new`: start a recipe of one's own from a shipped one."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import example
from mimetic.errors import UserError
from mimetic.files import write_text
from mimetic.recipe.shipped import shipped

EPILOG = example(
    """  $ mimetic new first.yaml
  first.yaml: copied from quickstart; next: mimetic plan first.yaml"""
)


def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)],
    source: Annotated[
        str, typer.Option("--from", help="Shipped recipe to copy; see `mimetic ls recipes`.")
    ] = "quickstart",
) -> None:
    """Copy a shipped recipe as the start of one's own; an existing file is never overwritten."""
    recipes = shipped()
    if source not in recipes:
        close = get_close_matches(source, recipes, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(recipes)}"
        raise UserError(f"no shipped recipe is called `{source}`; {hint}")
    if path.exists():
        raise UserError(f"{path} exists and is left as it is; choose another name")
    text = recipes[source].read_text(encoding="utf-8")
    write_text(path, text.replace(f"name: {recipes[source].stem}\n", f"name: {path.stem}\n"))
    typer.echo(f"{path}: copied from {source}; next: mimetic plan {path}")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Start a recipe from a shipped one.")(new)
