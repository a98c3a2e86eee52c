"""What is said of a rule on composite sites where nothing was recognised: what was found, and what to write.

A message that only says "not recognised" leaves the user to read the library.
"""

from collections.abc import Callable, Sequence

from mimetic.graph.config import fullmatch
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Site
from mimetic.plans.suspects import (
    Linears,
    Suspect,
    attention_suspects,
    condition,
    declaration,
    innermost,
    linears_below,
    quoted,
    widths,
)
from mimetic.recipe.rule import Rule

SHOWN = 8

Said = tuple[str, str | None]
"""What was found, and the repair."""


def unrecognised(rule: Rule, graph: Graph, sites: Sequence[Site]) -> Said | None:
    """Say what a rule may mean that nothing recognised.

    Args:
        rule: A rule on composite sites that matches nothing.
        graph: The sites of the model.
        sites: Those of the rule's kind.

    Returns:
        What was found and how to declare it; None where there are such sites and the rule names none that
        might be one.
    """
    if not sites:
        return _TOLD[str(rule.acts_on)](graph)
    meant = _meant(rule, graph, sites)
    return _told(graph, meant, "what it names is") if meant else None


def sizes(sites: Sequence[Site]) -> str:
    """List linear layers with their widths, at most a handful."""
    shown = ", ".join(f"`{site.layer}` {' → '.join(map(str, widths(site)))}" for site in sites[:SHOWN])
    return shown if len(sites) <= SHOWN else f"{shown} … ({len(sites)} in all)"


def _meant(rule: Rule, graph: Graph, sites: Sequence[Site]) -> list[Suspect]:
    """Return what a rule on attention names though nothing recognised it, where it names nothing else."""
    match, known = rule.match, {site.layer for site in sites}
    named = match.layer is not None or match.class_ is not None
    if rule.acts_on != "attention" or not named or any(mismatch(match, site) is None for site in sites):
        return []
    return [
        (layer, below)
        for layer, below in attention_suspects(graph)
        if layer not in known
        and (match.layer is None or fullmatch(match.layer, layer) is not None)
        and (match.class_ is None or match.class_ in graph.classes[layer])
    ]


def _attention(graph: Graph) -> Said:
    return _told(graph, attention_suspects(graph), "it has")


def _told(graph: Graph, suspects: Sequence[Suspect], subject: str) -> Said:
    """Say which linear layers a suspect has, or the model where there is none."""
    if suspects:
        layer, below = suspects[0]
        name = f"of class {graph.classes[layer][0]}{_more(suspects)}"
        name = f"`{layer}` {name}" if layer else f"the model itself, {name},"
        found = f"{name} looks like one: linear layers {sizes(list(below.values()))}"
    else:
        shown = sizes(list(linears_below(graph, "").values()))
        found = f"no layer looks like one; its linear layers are {shown}" if shown else "nor a linear layer"
    return f"{subject} no attention that could be recognised; {found}", declaration(graph, suspects)


def _position(graph: Graph) -> Said:
    tables = [p for site in graph.sites if site.kind in {"other", "embedding"} for p in site.parameters]
    tables = [p for p in tables if len(p.shape) == 2 or (len(p.shape) == 3 and p.shape[0] == 1)]  # noqa: PLR2004
    shown = ", ".join(f"`{p.name}` {'×'.join(map(str, p.shape))}" for p in tables[:SHOWN])
    return "it has no position site that could be recognised", (
        "position tables are told by names such as `pos_embed`, and by shapes (T, D) or (1, T, D); "
        + (f"of such a shape are {shown}" if shown else "no parameter has such a shape")
    )


def _ssm(graph: Graph) -> Said:
    """Say what a layer with an `A_log` lacks."""
    said = "it has no ssm site that could be recognised"
    holder = next((s for s in graph.sites if any(p.local == "A_log" for p in s.parameters)), None)
    if holder is not None:
        within = f"{holder.layer}." if holder.layer else ""
        below = {s.layer.removeprefix(within) for s in graph.sites if s.layer.startswith(within)}
        second = any(p.local == "dt_bias" for p in holder.parameters)
        wanted = ("conv1d", "in_proj", "out_proj") if second else ("conv1d", "x_proj", "dt_proj")
        lacks = ", ".join(f"`{name}`" for name in wanted if name not in below)
        why = f"no {lacks}" if lacks else "shapes that do not agree"
        said += f"; `{holder.layer}` of class {holder.classes[0]} has an `A_log`, but {why}"
    return said, (
        "state spaces are told by `A_log` beside `in_proj`, `conv1d`, and `x_proj` or `dt_bias`; "
        "any other is begun layer by layer, by rules on names"
    )


def _mlp(graph: Graph) -> Said:
    """Say which layers have two linear layers below of which the second leads back."""
    said = "it has no mlp site that could be recognised"
    told = "pairs are told by names such as `fc1` and `fc2` or `linear1` and `linear2`, and by their shapes; "
    pairs = innermost([(x, below) for x in graph.classes if _is_pair(below := linears_below(graph, x))])
    if not pairs:
        hint = "any other is declared, by the names of its layers below the matched one: "
        return said, f"{told}{hint}`mlp: {{fc1: …, fc2: …}}`"
    layer, below = pairs[0]
    said += f"; `{layer}`{_more(pairs)} looks like one: linear layers {sizes(list(below.values()))}"
    first, second = (quoted(path) for path in below)
    block = f"`mlp: {{fc1: {first}, fc2: {second}}}`"
    return said, f"{told}declare it: `match: {condition(graph, layer)}`, {block}"


def _is_pair(below: Linears) -> bool:
    shapes = [widths(site) for site in below.values()]
    return len(shapes) == 2 and shapes[0] == shapes[1][::-1] and shapes[0][0] != shapes[0][1]  # noqa: PLR2004


def _more(suspects: Sequence[Suspect]) -> str:
    return f" (and {len(suspects) - 1} more)" if len(suspects) > 1 else ""


_TOLD: dict[str, Callable[[Graph], Said]] = {
    "attention": _attention,
    "position": _position,
    "ssm": _ssm,
    "mlp": _mlp,
}
