"""`mimetic plan`: how every parameter of the model would be initialized; nothing is built or written."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import (
    AllowCode,
    ArmName,
    ModelName,
    Overrides,
    RecipePath,
    Root,
    console,
    echo,
    example,
    pluralize,
    print_table,
)
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.plans.entry import Entry
    from mimetic.plans.plan import Plan

EPILOG = example(
    """  $ mimetic plan recipes/quickstart.yaml --arm closed-form
  closed-form: 4 of 38 parameters by 1 rule, seed 0, plan …
  parameter                shape     kind            init            …
  blocks.0.spatial.weight  64×1×5×5  depthwise_conv  closed_form(wid…
  blocks.1.spatial.weight  64×1×5×5  depthwise_conv  closed_form(wid…
  …
  34 parameters keep the model's own initialization (--all shows them)

  $ mimetic plan filters.yaml --model timm:convmixer_768_32 --json"""
)


def plan(
    recipe: RecipePath,
    arm: ArmName = None,
    model: ModelName = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed; the recipe's first by default.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also show the parameters no rule matches, and all sites.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Show how every parameter is initialized: rule, initializer, arguments, expected std, frozen or not."""
    from mimetic.cli.inputs import load_recipe, planned

    loaded = load_recipe(recipe, overrides)
    found = planned(loaded, arm=arm, seed=seed, model=model, root=root, allow_code=allow_code)
    learners = {
        f"{family.removesuffix('s')} {name}: {getattr(loaded, family)[name].learner.type_name()}": lines
        for (family, name), lines in found.learners.items()
    }
    if as_json:
        plans = {name: plan.to_dict() for name, plan in found.plans.items()}
        echo(json.dumps(plans | {name: {"learner": text} for name, text in learners.items()}, indent=1))
        return
    out = console()
    for name, plan in found.plans.items():
        _print_plan(out, name, plan, every=every)
    for name, lines in learners.items():
        out.print("\n  ".join((name, *lines)))


def _print_plan(out: "Console", name: str, plan: "Plan", *, every: bool) -> None:
    """Print a summary, the surgery, the parameters, the sites with `--all`, and the notes."""
    claimed = [entry for entry in plan.entries if entry.rule is not None]
    rules = pluralize(len({entry.rule for entry in claimed}), "rule")
    total = pluralize(len(plan.entries), "parameter")
    out.print(f"{name}: {len(claimed)} of {total} by {rules}, seed {plan.seed}, plan {plan.hash[:12]}")
    if plan.note is not None:
        out.print(f"  order of registration, not of execution: {plan.note}")
    if plan.rewrites:
        cells = [[one.layer, one.was, one.becomes, one.rewrite, one.where or ""] for one in plan.rewrites]
        print_table(out, ("layer", "was", "becomes", "rewrite", "at"), cells)
    entries = [entry for entry in plan.entries if every or entry.rule is not None or entry.frozen]
    if entries:
        header = ("parameter", "shape", "kind", "init", "std", "rule", "at")
        print_table(out, header, [_cells(entry) for entry in entries])
    if every and plan.sites:
        _print_sites(out, plan)
    _print_notes(out, plan)
    left = len(plan.entries) - len(entries)
    if left:
        out.print(f"  {left} parameters keep the model's own initialization (--all shows them)")


def _cells(entry: "Entry") -> list[str]:
    """Return the row of a parameter."""
    from mimetic.graph.site import shape_text
    from mimetic.plans.plan import describe

    tied = f" (tied: {', '.join(entry.aliases)})" if entry.aliases else ""
    return [
        entry.parameter + tied,
        shape_text(entry.shape),
        entry.kind,
        describe(entry) + (", frozen" if entry.frozen else ""),
        "" if entry.moments is None else f"{entry.moments.std:.4g}",
        entry.rule or "",
        entry.where or "",
    ]


def _print_sites(out: "Console", plan: "Plan") -> None:
    """Print the composite sites."""
    rows = []
    for site in plan.sites:
        slots = "; ".join(f"{', '.join(names)} in {local}" for local, names in site.holding().items())
        sizes = "" if site.structure is None else site.structure.sizes
        rows.append([site.layer, site.kind, f"{site.depth:.3g}", slots, sizes])
    print_table(out, ("site", "kind", "depth", "slots", "sizes"), rows)


def _print_notes(out: "Console", plan: "Plan") -> None:
    """Print each note once, with the first parameter it is about, and the frozen statistics."""
    notes: dict[str, list[str]] = {}
    for entry in plan.entries:
        for note in entry.notes:
            notes.setdefault(note, []).append(entry.parameter)
    for note, parameters in notes.items():
        more = f" and {len(parameters) - 1} more" if len(parameters) > 1 else ""
        out.print(f"  {parameters[0]}{more}: {note}")
    if plan.frozen_bn_layers:
        out.print(f"  frozen running statistics: {', '.join(plan.frozen_bn_layers)}")
