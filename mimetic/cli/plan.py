"""`mimetic plan`: how every parameter of the model would be initialized; nothing is written."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import Json, console, example, print_json, print_notes, print_table, print_wrapped
from mimetic.cli.inputs import planned, recipe_or_model
from mimetic.cli.options import PlanOptions, expand
from mimetic.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.plans.plan import Plan

EPILOG = example(
    """  $ mimetic plan recipes/quickstart.yaml --arm closed-form
  closed-form: 4 of 38 parameters by 1 rule, seed 0, plan …
  parameter                shape     kind            init            …
  blocks.0.spatial.weight  64×1×5×5  depthwise_conv  closed_form(wid…
  blocks.1.spatial.weight  64×1×5×5  depthwise_conv  closed_form(wid…
  …
  34 parameters keep the model's own initialization (--all shows them)

  $ mimetic plan filters.yaml --model timm:convmixer_768_32 --json
  $ mimetic plan timm:vit_tiny_patch16_224
  …
  blocks.{0..11}.attn.qkv.weight ×12   576×192      linear  model's own
  …"""
)


@expand
def plan(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Path of the recipe; or a model, e.g. timm:vit_tiny_patch16_224, to see what there is.",
            show_default=False,
        ),
    ],
    options: PlanOptions,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed; the recipe's first by default.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show all parameters and all sites, each in a separate row.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how every parameter is initialized: rule, initializer, arguments, expected std, frozen or not."""
    loaded, alone = recipe_or_model(recipe, options.overrides)
    if options.model is None:
        options = replace(options, model=alone)
    found = planned(loaded, options, seed=seed)
    learners = {
        f"{family.removesuffix('s')} {name}: {getattr(loaded, family)[name].learner.type_name()}": lines
        for (family, name), lines in found.learners.items()
    }
    if as_json:
        plans = {name: plan.to_dict() for name, plan in found.plans.items()}
        print_json(plans | {name: {"learner": text} for name, text in learners.items()})
        return
    out = console()
    for name, plan in found.plans.items():
        _print_plan(out, name, plan, every=every, is_model=alone is not None)
    for name, lines in learners.items():
        for line in (name, *(f"  {line}" for line in lines)):
            print_wrapped(out, line)


def _print_plan(out: "Console", name: str, plan: "Plan", *, every: bool, is_model: bool) -> None:
    """Print a summary, the surgery, the parameters, the sites with `--all`, and the notes.

    Of a model without a recipe, all parameters are printed.
    """
    table = plan.table(every=every or is_model)
    out.print(f"{name}: {table.title}")
    if plan.note is not None:
        print_wrapped(out, f"  order of registration, not of execution: {plan.note}")
    if plan.rewrites:
        print_table(out, _collapsed(_rewrites(plan), every=every))
    if table.rows:
        print_table(out, _collapsed(table, every=every))
    if every and plan.sites:
        print_table(out, _sites(plan))
    print_notes(out, ((entry.parameter, note) for entry in plan.entries for note in entry.notes))
    if plan.frozen_bn_layers:
        print_wrapped(out, f"  frozen running statistics: {', '.join(plan.frozen_bn_layers)}")
    for note in table.notes:
        print_wrapped(out, f"  {note} (--all shows them)")


def _collapsed(table: Table, *, every: bool) -> Table:
    return table if every else table.collapsed()


def _rewrites(plan: "Plan") -> Table:
    """Return what surgery replaces, one row for each layer."""
    rows = tuple((one.layer, one.was, one.becomes, one.rewrite, one.where or "") for one in plan.rewrites)
    return Table("", ("layer", "was", "becomes", "rewrite", "at"), rows, optional=("at", "rewrite"), left=5)


def _sites(plan: "Plan") -> Table:
    """Return the composite sites, one row each."""
    rows = []
    for site in plan.sites:
        slots = "; ".join(
            f"{', '.join(names)} in {local}" for local, names in site.slots_by_parameter().items()
        )
        sizes = "" if site.structure is None else site.structure.sizes
        rows.append((site.layer, site.kind, f"{site.depth:.3g}", slots, sizes))
    header = ("site", "kind", "depth", "slots", "sizes")
    return Table("", header, tuple(rows), optional=("depth", "sizes"), left=5)
