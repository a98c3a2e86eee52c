"""`mimetic new`: start a new recipe from a shipped one."""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli import completion
from mimetic.cli.console import echo, example, write_file
from mimetic.config.suggest import did_you_mean
from mimetic.errors import UserError
from mimetic.recipe.shipped import shipped

EPILOG = example(
    """  $ mimetic new first.yaml
  first.yaml: copied from quickstart; next: mimetic plan first.yaml"""
)


def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.", show_default=False)],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="NAME",
            help="Shipped recipe to copy; see `mimetic ls recipes`.",
            autocompletion=completion.shipped,
        ),
    ] = "quickstart",
) -> None:
    """Copy a shipped recipe to start from; an existing file is never overwritten."""
    recipes = shipped()
    if source not in recipes:
        hint = did_you_mean(source, recipes) or f"there are {', '.join(recipes)}"
        raise UserError(f"no shipped recipe is called `{source}`; {hint}", code="MIM-X040")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is not overwritten; choose another name", code="MIM-X041")
    write_file(path, copied(recipes[source], path))
    echo(f"{path}: copied from {source}; next: mimetic plan {shlex.quote(str(path))}")


def copied(source: Path, target: Path) -> str:
    """Return the text of a recipe for a copy elsewhere.

    The recipe takes the file's name, its example names the file, paths it extends become absolute, and the
    editor's modeline, which is relative to the original, is removed.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.stem).strip("._-")
    text = source.read_text(encoding="utf-8")
    text = re.sub(r"\A# yaml-language-server:.*\n", "", text)
    text = re.sub(rf"(mimetic run) \S*{source.stem}\.yaml", rf"\1 {shlex.quote(str(target))}", text)
    text = re.sub(r"(?m)^extends: (\S+\.yaml)$", lambda found: _absolute(found, source), text)
    return re.sub(r"(?m)^name: .*$", f"name: {name if name else source.stem}", text, count=1)


def _absolute(found: re.Match[str], source: Path) -> str:
    return f"extends: {(source.parent / found[1]).resolve()}"
