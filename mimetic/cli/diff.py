"""`mimetic diff`: which parameters are initialized differently in two plans."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import AllowCode, ModelName, Root, console, example
from mimetic.errors import UserError
from mimetic.recipe.load import load
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.plans.plan import Plan

EPILOG = example(
    """  $ mimetic diff recipes/quickstart.yaml#default recipes/quickstart.yaml#closed-form
  parameter                default               closed-form
  blocks.0.spatial.weight  64×1×5×5 model's own  64×1×5×5 closed_form(width=0.15)
  blocks.1.spatial.weight  64×1×5×5 model's own  64×1×5×5 closed_form(width=0.3306)
  …
  4 of 38 parameters differ"""
)


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    plan: "Plan"


def diff(
    one: Annotated[
        str, typer.Argument(metavar="RECIPE[#ARM]", show_default=False, help="A recipe, and its arm.")
    ],
    other: Annotated[
        str, typer.Argument(metavar="RECIPE[#ARM]", show_default=False, help="Another, or another arm of it.")
    ],
    model: ModelName = None,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Compare two plans parameter by parameter: not the text of the recipes, but what they mean."""
    left, right = (_side(text, model=model, root=root, allow_code=allow_code) for text in (one, other))
    from rich import box
    from rich.table import Table

    from mimetic.plans.plan import differences

    rows = differences(left.plan.entries, right.plan.entries)
    out = console()
    names = (left.name, right.name) if left.name != right.name else (one, other)
    if rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("parameter", *names):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        out.print(table)
    total = len({entry.parameter for entry in (*left.plan.entries, *right.plan.entries)})
    out.print(f"{len(rows)} of {total} parameters differ")


def _side(text: str, *, model: str | None, root: Path, allow_code: bool) -> _Side:
    path, _, arm = text.partition("#")
    recipe = load(path)
    if not arm and len(recipe.arms) > 1:
        shown = ", ".join(f"{path}#{name}" for name in recipe.arms)
        raise UserError(f"{path} has several arms; say which one: {shown}")
    from mimetic.cli.plans import plans_of

    plans = plans_of(recipe, arm=arm or None, seed=0, model=model, root=root, allow_code=allow_code)
    ((name, plan),) = plans.items()
    return _Side(name, plan)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Compare two plans.")(diff)
