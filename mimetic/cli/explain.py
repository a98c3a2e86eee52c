"""`mimetic explain`: why one parameter begins as it does."""

from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import AllowCode, ArmName, ModelName, Overrides, RecipePath, console, example
from mimetic.errors import UserError
from mimetic.recipe.load import load

if TYPE_CHECKING:
    from mimetic.graph.site import Site

EPILOG = example(
    """  $ mimetic explain recipes/quickstart.yaml blocks.0.spatial --arm closed-form
  closed-form: blocks.0.spatial.weight, 64×1×5×5, a depthwise_conv at depth 0
    filters          applies (recipes/quickstart.yaml:27)
    → closed_form(width=0.15), expected std 0.1607
  closed-form: blocks.0.spatial.bias, 64, a depthwise_conv at depth 0
    filters          no: it speaks of `weight`, not of `bias`
    → model's own"""
)


def explain(
    recipe: RecipePath,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a parameter or of a layer.", show_default=False)
    ],
    arm: ArmName = None,
    model: ModelName = None,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
) -> None:
    """Show the verdict of every rule on a parameter or on all parameters of a layer."""
    loaded = load(recipe, overrides=overrides if overrides is not None else ())
    from mimetic.cli.plans import planned, without_network
    from mimetic.plans.explain import explain as verdicts
    from mimetic.plans.plan import describe

    out = console()
    found = planned(loaded, arm=arm, model=model, allow_code=allow_code)
    if not found.plans:
        raise UserError(without_network(next(iter(loaded.arms)) if arm is None else arm))
    for chosen, plan in found.plans.items():
        for item in verdicts(loaded.arms[chosen], found.graphs[chosen], name):
            entry = plan.entry(item.parameter.name)
            assert entry is not None
            shape = "×".join(str(side) for side in item.parameter.shape)
            out.print(
                f"{chosen}: {item.parameter.name}, {shape}, {_kind(item.site)} at depth {item.site.depth:.3g}"
            )
            for verdict in item.verdicts:
                said = f"applies ({entry.where})" if verdict.reason is None else f"no: {verdict.reason}"
                out.print(f"  {verdict.rule:<16} {said}")
            std = "" if entry.moments is None else f", expected std {entry.moments.std:.4g}"
            frozen = ", frozen" if entry.frozen else ""
            out.print(f"  → {describe(entry)}{std}{frozen}")


def _kind(site: "Site") -> str:
    """Return what a parameter belongs to: `a linear`, or `part of the attention blocks.0.attn`."""
    return f"a {site.kind}" if site.structure is None else f"part of the {site.kind} {site.layer}"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Show why a parameter begins as it does.")(explain)
