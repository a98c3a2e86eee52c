"""`mimetic plan`: how every parameter of the model would begin; nothing is built or written."""

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
    counted,
    example,
)
from mimetic.recipe.load import load
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from rich.table import Table

    from mimetic.plans.plan import Plan

EPILOG = example(
    """  $ mimetic plan recipes/quickstart.yaml --arm closed-form
  closed-form: 4 of 38 parameters by 1 rule, seed 0, plan …
  parameter                shape     kind            begins                     std     rule     at
  blocks.0.spatial.weight  64×1×5×5  depthwise_conv  closed_form(width=0.15)    0.1607  filters  …
  blocks.1.spatial.weight  64×1×5×5  depthwise_conv  closed_form(width=0.3306)  0.2451  filters  …
  …
  34 parameters keep the model's own initialization (--all shows them)

  $ mimetic plan filters.yaml --model timm:convmixer_768_32 --json"""
)


def plan(
    recipe: RecipePath,
    arm: ArmName = None,
    model: ModelName = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed; the recipe's first unless given.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show the parameters no rule matches, too, and all sites.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    overrides: Overrides = None,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Show how every parameter begins: rule, initializer, arguments, expected std, frozen or not."""
    loaded = load(recipe, overrides=overrides if overrides is not None else ())
    from mimetic.cli.plans import planned

    found = planned(loaded, arm=arm, seed=seed, model=model, root=root, allow_code=allow_code)
    learners = {
        f"{family.removesuffix('s')} {name}: {getattr(loaded, family)[name].learner.type_name()}": lines
        for (family, name), lines in found.learners.items()
    }
    if as_json:
        told = {name: {"learner": lines} for name, lines in learners.items()}
        typer.echo(json.dumps({name: made.to_dict() for name, made in found.plans.items()} | told, indent=1))
        return
    for name, made in found.plans.items():
        _print(name, made, every=every)
    for name, lines in learners.items():
        console().print("\n  ".join((name, *lines)))


def _print(name: str, made: "Plan", *, every: bool) -> None:
    from rich import box
    from rich.table import Table

    from mimetic.plans.plan import describe

    out = console()
    claimed = [entry for entry in made.entries if entry.rule is not None]
    rules = len({entry.rule for entry in claimed})
    out.print(
        f"{name}: {len(claimed)} of {counted(len(made.entries), 'parameter')} by {counted(rules, 'rule')}, "
        f"seed {made.seed}, plan {made.hash[:12]}"
    )
    if made.note is not None:
        out.print(f"  order of registration, not of execution: {made.note}")
    if made.rewrites:
        out.print(_surgery(made))
    shown = made.entries if every else [e for e in made.entries if e.rule is not None or e.frozen]
    if shown:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("parameter", "shape", "kind", "begins", "std", "rule", "at"):
            table.add_column(column, overflow="fold")
        for entry in shown:
            tied = f" (tied: {', '.join(entry.aliases)})" if entry.aliases else ""
            table.add_row(
                entry.parameter + tied,
                "×".join(str(side) for side in entry.shape),
                entry.kind,
                describe(entry) + (", frozen" if entry.frozen else ""),
                "" if entry.moments is None else f"{entry.moments.std:.4g}",
                entry.rule,
                entry.where,
            )
        out.print(table)
    if every and made.sites:
        out.print(_sites(made))
    for note, parameters in _notes(made).items():
        more = f" and {len(parameters) - 1} more" if len(parameters) > 1 else ""
        out.print(f"  {parameters[0]}{more}: {note}")
    if made.frozen_bn_layers:
        out.print(f"  running statistics held: {', '.join(made.frozen_bn_layers)}")
    left = len(made.entries) - len(shown)
    if left and not every:
        out.print(f"  {left} parameters keep the model's own initialization (--all shows them)")


def _surgery(made: "Plan") -> "Table":
    """Return the table of what surgery replaced, shown before the parameters."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "was", "becomes", "rewrite", "at"):
        table.add_column(column, overflow="fold")
    for one in made.rewrites:
        table.add_row(one.layer, one.was, one.becomes, one.rewrite, one.where)
    return table


def _sites(made: "Plan") -> "Table":
    """Return the table of the composite sites, shown behind the parameters."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("site", "kind", "depth", "slots", "sizes"):
        table.add_column(column, overflow="fold")
    for site in made.sites:
        held = (f"{', '.join(slots)} in {local}" for local, slots in site.holding().items())
        sizes = "" if site.structure is None else site.structure.sizes
        table.add_row(site.layer, site.kind, f"{site.depth:.3g}", "; ".join(held), sizes)
    return table


def _notes(made: "Plan") -> dict[str, list[str]]:
    """Return each note with the parameters it was made of."""
    notes: dict[str, list[str]] = {}
    for entry in made.entries:
        for note in entry.notes:
            notes.setdefault(note, []).append(entry.parameter)
    return notes


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Show how every parameter begins.")(plan)
