"""`mimetic new`: start a recipe of one's own from a shipped one."""

import re
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import example, write_file
from mimetic.errors import UserError
from mimetic.recipe.shipped import shipped

EPILOG = example(
    """  $ mimetic new first.yaml
  first.yaml: copied from quickstart; next: mimetic plan first.yaml"""
)


def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)],
    source: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Shipped recipe to copy; see `mimetic ls recipes`.")
    ] = "quickstart",
) -> None:
    """Copy a shipped recipe as the start of one's own; an existing file is never overwritten."""
    recipes = shipped()
    if source not in recipes:
        close = get_close_matches(source, recipes, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(recipes)}"
        raise UserError(f"no shipped recipe is called `{source}`; {hint}")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is left as it is; choose another name")
    write_file(path, copied(recipes[source], path))
    typer.echo(f"{path}: copied from {source}; next: mimetic plan {shlex.quote(str(path))}")


def copied(source: Path, target: Path) -> str:
    """Return the text of a recipe as it stands in another place.

    Its name becomes the file's, its example names the file, what it extends is found from anywhere, and
    the editor's modeline, which points beside the original, goes.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.stem).strip("._-")
    text = source.read_text(encoding="utf-8")
    text = re.sub(r"\A# yaml-language-server:.*\n", "", text)
    text = re.sub(rf"(mimetic run) \S*{source.stem}\.yaml", rf"\1 {shlex.quote(str(target))}", text)
    text = re.sub(r"(?m)^extends: (\S+\.yaml)$", lambda found: _absolute(found, source), text)
    return re.sub(r"(?m)^name: .*$", f"name: {name if name else source.stem}", text, count=1)


def _absolute(found: re.Match[str], source: Path) -> str:
    return f"extends: {(source.parent / found[1]).resolve()}"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Start a recipe from a shipped one.")(new)
