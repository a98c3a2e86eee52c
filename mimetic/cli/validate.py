"""`mimetic validate`: is the recipe well formed? Needs neither torch nor the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import WRONG, Json, Overrides, echo, error_text, example, print_json
from mimetic.cli.inputs import load_recipe
from mimetic.config.errors import Issue, RecipeError, dotted
from mimetic.errors import UserError

if TYPE_CHECKING:
    from mimetic.recipe.recipe import Recipe

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
    as_json: Json = False,
) -> None:
    """Check recipes for mistakes; each is shown with its position and a repair."""
    if untrusted:
        from mimetic.config.registry import exclude_plugins

        exclude_plugins()
    found: dict[Path, Recipe | UserError] = {}
    for path in _recipes(paths):
        try:
            found[path] = recipe = load_recipe(path, overrides, untrusted=untrusted)
        except UserError as error:
            found[path] = error
            if not as_json:
                echo(error_text(error), err=True)
        else:
            if not as_json:
                echo(f"{path}: ok, {recipe.size}")
    if as_json:
        print_json({path: _record(result) for path, result in found.items()})
    if any(isinstance(result, UserError) for result in found.values()):
        raise typer.Exit(WRONG)


def _record(result: "Recipe | UserError") -> dict[str, object]:
    """Return arms and seeds of a recipe, or its mistakes with their positions, as plain values."""
    if not isinstance(result, UserError):
        return {"arms": list(result.arms), "seeds": result.seeds, "errors": []}
    issues = result.issues if isinstance(result, RecipeError) else [Issue(str(result), code=result.code)]
    errors = [
        {
            "code": issue.code,
            "message": issue.message,
            "path": dotted(issue.path),
            "file": None if issue.mark is None else issue.mark.file,
            "line": None if issue.mark is None else issue.mark.line,
            "column": None if issue.mark is None else issue.mark.column,
            "hint": issue.hint,
        }
        for issue in issues
    ]
    return {"arms": [], "seeds": [], "errors": errors}


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
