"""`mimetic explain`: why one parameter is initialized as it is."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import Json, RecipePath, console, example, print_item, print_json, print_wrapped
from mimetic.cli.inputs import load_recipe, plans_of
from mimetic.cli.options import PlanOptions, expand

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.plans.entry import Entry
    from mimetic.plans.explain import Explanation

EPILOG = example(
    """  $ mimetic explain recipes/quickstart.yaml blocks.0.spatial --arm closed-form
  closed-form: blocks.0.spatial.weight, 64×1×5×5, depthwise_conv, depth 0
    filters          applies (recipes/quickstart.yaml:27)
    → closed_form(width=0.15), expected std 0.1607
  closed-form: blocks.0.spatial.bias, 64, depthwise_conv, depth 0
    filters          no: the rule applies to `weight`, not to `bias`
    → model's own"""
)


@expand
def explain(
    recipe: RecipePath,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a parameter or of a layer.", show_default=False)
    ],
    options: PlanOptions,
    as_json: Json = False,
) -> None:
    """Show the verdict of every rule on a parameter or on all parameters of a layer."""
    from mimetic.plans.explain import explain as verdicts

    loaded = load_recipe(recipe, options.overrides)
    found = [
        (chosen, item, plan.entry(item.parameter.name))
        for chosen, plan in plans_of(loaded, options).items()
        for item in verdicts(plan.matching, name)
    ]
    if as_json:
        print_json([_record(chosen, item, entry) for chosen, item, entry in found if entry is not None])
        return
    out = console()
    for chosen, item, entry in found:
        assert entry is not None
        _print(out, chosen, item, entry)


def _record(arm: str, item: "Explanation", entry: "Entry") -> dict[str, object]:
    """Return one parameter with each rule's verdict as plain values."""
    from mimetic.plans.plan import describe

    return {
        "arm": arm,
        "parameter": entry.parameter,
        "shape": entry.shape,
        "kind": item.site.kind,
        "depth": item.site.depth,
        "verdicts": [{**asdict(verdict), "applies": verdict.reason is None} for verdict in item.verdicts],
        "rule": entry.rule,
        "where": entry.where,
        "init": describe(entry),
        "std": None if entry.moments is None else entry.moments.std,
        "frozen": entry.frozen,
    }


def _print(out: "Console", arm: str, item: "Explanation", entry: "Entry") -> None:
    """Print one parameter: what it is, each rule's verdict, and the outcome."""
    from mimetic.graph.site import shape_text
    from mimetic.plans.plan import describe

    site = item.site
    kind = site.kind if site.structure is None else f"part of the {site.kind} {site.layer}"
    shape = shape_text(entry.shape)
    print_wrapped(out, f"{arm}: {entry.parameter}, {shape}, {kind}, depth {site.depth:.3g}")
    for verdict in item.verdicts:
        alias = "" if verdict.alias is None else f"to `{verdict.alias}`, the same tensor, "
        text = f"applies {alias}({entry.where})" if verdict.reason is None else f"no: {verdict.reason}"
        print_item(out, verdict.rule, text, width=16)
    std = "" if entry.moments is None else f", expected std {entry.moments.std:.4g}"
    print_wrapped(out, f"  → {describe(entry)}{std}{', frozen' if entry.frozen else ''}")
