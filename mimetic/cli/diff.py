"""`mimetic diff`: which parameters are initialized differently in two plans."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import AllowCode, Json, ModelName, Root, console, example, print_json, print_table
from mimetic.cli.inputs import plans_of
from mimetic.cli.options import PlanOptions
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.plans.plan import Plan

EPILOG = example(
    """  $ mimetic diff recipes/quickstart.yaml#default recipes/quickstart.yaml#closed-form
  parameter                shape     default      closed-form
  blocks.0.spatial.weight  64×1×5×5  model's own  closed_form(width=…
  blocks.1.spatial.weight  64×1×5×5  model's own  closed_form(width=…
  …
  4 of 38 parameters differ"""
)


def diff(
    one: Annotated[
        str, typer.Argument(metavar="RECIPE[#ARM]", show_default=False, help="A recipe, and its arm.")
    ],
    other: Annotated[
        str, typer.Argument(metavar="RECIPE[#ARM]", show_default=False, help="Another, or another arm of it.")
    ],
    model: ModelName = None,
    every: Annotated[bool, typer.Option("--all", help="Show each parameter in a separate row.")] = False,
    as_json: Json = False,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Compare two plans parameter by parameter: not the text of the recipes, but what they mean."""
    options = PlanOptions(model=model, root=root, allow_code=allow_code)
    (left_name, left), (right_name, right) = (_plan(text, options) for text in (one, other))
    from mimetic.plans.plan import differences  # and torch, which a mistake does not wait for

    names = (left_name, right_name) if left_name != right_name else (one, other)
    table = differences(left.entries, right.entries, names)
    if as_json:
        rows = [{"parameter": row[0], "shape": row[1], "arms": row[2:]} for row in table.rows]
        print_json({"arms": names, "differences": rows})
        return
    out = console()
    if table.rows:
        print_table(out, table if every else table.collapsed())
    out.print(table.title)


def _plan(text: str, options: PlanOptions) -> "tuple[str, Plan]":
    """Return the arm that `RECIPE#ARM` names, and its plan."""
    from mimetic.recipe.load import load

    path, _, arm = (text, "", "") if Path(text).is_file() or "#" not in text else text.rpartition("#")
    recipe = load(path)
    if not arm and len(recipe.arms) > 1:
        names = ", ".join(f"{path}#{name}" for name in recipe.arms)
        raise UserError(f"{path} has several arms; name one of {names}", code="MIM-X020")
    plans = plans_of(recipe, replace(options, arm=arm or None), seed=0)
    return next(iter(plans.items()))
