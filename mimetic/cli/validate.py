"""`mimetic validate`: is the recipe well formed? Needs neither torch nor the model."""

from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import WRONG, Overrides, echo, error_text, example, pluralize
from mimetic.cli.inputs import load_recipe
from mimetic.errors import UserError

EPILOG = example(
    """  $ mimetic validate recipes/quickstart.yaml
  recipes/quickstart.yaml: ok, 3 arms × 3 seeds

  $ mimetic validate wrong.yaml
  wrong.yaml:3:19: init.rule-1.match.kind: `depthwise` is not one of …
       3 |   - match: {kind: depthwise}
         |                   ^
      hint: did you mean `depthwise_conv`?"""
)


def validate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RECIPE...", help="Recipes, or folders of recipes.", show_default=False),
    ],
    overrides: Overrides = None,
    untrusted: Annotated[
        bool,
        typer.Option(
            "--untrusted", help="Read no other file, load no plug-in, and refuse paths, downloads and code."
        ),
    ] = False,
) -> None:
    """Check recipes for mistakes; each is shown with its position and a repair."""
    if untrusted:
        from mimetic.config.registry import exclude_plugins

        exclude_plugins()
    wrong = 0
    for path in _recipes(paths):
        try:
            recipe = load_recipe(path, overrides, untrusted=untrusted)
        except UserError as error:
            echo(error_text(error), err=True)
            wrong += 1
            continue
        echo(f"{path}: ok, {pluralize(len(recipe.arms), 'arm')} × {pluralize(len(recipe.seeds), 'seed')}")
    if wrong:
        raise typer.Exit(WRONG)


def _recipes(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        below = _below(path) if path.is_dir() else [path]
        if not below:
            raise UserError(f"{path} contains no recipe (*.yaml)", code="MIM-X080")
        found += below
    return found


def _below(folder: Path) -> list[Path]:
    """Return the recipes below a folder, hidden folders (`.venv`) excluded."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".yaml", ".yml"} and path.is_file())
    return [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
