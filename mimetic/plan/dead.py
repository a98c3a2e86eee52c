"""Why a rule matches nothing: the name first, then the other conditions, then the parameter."""

from collections.abc import Sequence
from difflib import get_close_matches

from mimetic.graph import Graph, Site
from mimetic.plan.matching import mismatch, views
from mimetic.recipe.match import Match, fullmatch
from mimetic.recipe.rule import Rule

_SHOWN = 8

_TOLD_BY = {
    "position": "position tables are told by names such as `pos_embed`, and by shapes (T, D) or (1, T, D)",
    "ssm": "state spaces are told by `A_log` beside `in_proj`, `conv1d`, and `x_proj` or `dt_bias`",
    "mlp": "pairs are told by names such as `fc1` and `fc2` or `linear1` and `linear2`, and by their shapes",
}

Reason = tuple[str, str | None]
"""What is wrong, and the repair."""


def dead(rule: Rule, graph: Graph, declared: Sequence[Site] = ()) -> Reason:
    """Say why a rule matches nothing.

    Args:
        rule: The rule.
        graph: The sites of the model.
        declared: The attention sites the rule declares.
    """
    message = f"rule `{rule.id}` matches nothing in this model"
    everything = [site for site in (*graph.sites, *graph.composites, *declared) if views(rule, site)]
    if not everything and rule.acts_on is not None:
        return _unrecognised(rule, message, "it has", graph, _suspects(graph))
    meant = _meant(rule, graph, everything)
    if meant:
        return _unrecognised(rule, message, "what it names is", graph, meant)
    names = [site.layer for site in everything]
    pattern = rule.match.layer
    named = rule.match.model_copy(update={"layer": None})
    sites = everything
    if pattern is not None:
        by_name = Match(layer=pattern)
        sites = [site for site in everything if mismatch(by_name, site) is None]
        if not sites:
            what = "layer" if rule.acts_on is None else f"site of kind `{rule.acts_on}`"
            return f"{message}: no {what} is named like `{pattern}`", _similar(rule, pattern, names, graph)
    reasons = [(site, mismatch(named, site)) for site in sites]
    fitting = [site for site, reason in reasons if reason is None]
    if fitting:
        have = sorted({p.local for site in fitting for p in site.parameters})
        param = "weight" if rule.match.param is None else rule.match.param
        return (
            f"{message}: {len(fitting)} layers fit, but none has a parameter `{param}`",
            f"their parameters are {listing(have)}",
        )
    if pattern is None:
        kinds = sorted({site.kind for site in (*graph.sites, *graph.composites)})
        return message, f"the model has layers of kind {listing(kinds)}"
    site, reason = reasons[0]
    return f"{message}: {len(sites)} layers have such a name, but for `{site.layer}`, {reason}", None


def listing(names: Sequence[str]) -> str:
    """List names, at most a handful."""
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} … ({len(names)} in all)"


def _similar(rule: Rule, pattern: str, names: list[str], graph: Graph) -> str | None:
    plain = pattern.replace("\\.", ".").replace("\\d+", "0")
    everything = names if rule.acts_on is not None else [*names, *graph.layers]
    inside = [name for name in names if name.startswith(f"{plain}.")]
    if inside:
        return f"the whole name must match; below `{plain}` there are {listing(inside)}"
    close = get_close_matches(plain, everything, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{name}`' for name in dict.fromkeys(close))}?"
    return f"layers are named {listing(names)}" if names else "the model has no parameters"


Suspect = tuple[str, list[Site]]
"""A layer that may be an attention, and the linear layers below it."""


def _unrecognised(
    rule: Rule, message: str, subject: str, graph: Graph, suspects: Sequence[Suspect]
) -> Reason:
    """Say what of the model might be such a site, and how to declare it."""
    if rule.acts_on != "attention":
        return f"{message}: it has no {rule.acts_on} site that could be recognised", _TOLD_BY.get(
            str(rule.acts_on)
        )
    linears = [site for site in graph.sites if site.kind == "linear" and site.geometry is not None]
    shown = suspects[0][1] if suspects else linears
    layers = ", ".join(f"`{site.layer}` {_sizes(site)}" for site in shown[:_SHOWN])
    if suspects:
        layer, _ = suspects[0]
        more = f" (and {len(suspects) - 1} more)" if len(suspects) > 1 else ""
        found = f"`{layer}` of class {graph.classes[layer][0]}{more} looks like one: linear layers {layers}"
    else:
        found = f"no layer looks like one; its linear layers are {layers}" if layers else "nor a linear layer"
    return f"{message}: {subject} no attention that could be recognised; {found}", _declaration(suspects)


def _meant(rule: Rule, graph: Graph, sites: Sequence[Site]) -> list[Suspect]:
    """Return what a rule on attention names though nothing recognised it, where it names nothing else."""
    match, known = rule.match, {site.layer for site in sites}
    named = match.layer is not None or match.class_ is not None
    if rule.acts_on != "attention" or not named or any(mismatch(match, site) is None for site in sites):
        return []
    return [
        (layer, below)
        for layer, below in _suspects(graph)
        if layer not in known
        and (match.layer is None or fullmatch(match.layer, layer) is not None)
        and (match.class_ is None or match.class_ in graph.classes[layer])
    ]


def _suspects(graph: Graph) -> list[Suspect]:
    """Return layers whose name or class speaks of attention, with the linear layers below each."""
    found = []
    for layer, classes in graph.classes.items():
        told = f"{layer.rpartition('.')[2]} {classes[0]}".lower()
        below = [s for s in graph.sites if s.kind == "linear" and s.layer.startswith(f"{layer}.")]
        if ("attn" in told or "attention" in told) and len(below) > 1:
            found.append((layer, below))
    return found


def _declaration(suspects: Sequence[Suspect]) -> str:
    """Write the `attention:` block for the first suspect, as far as its layers tell."""
    says = "match the layer that holds them by name, and say in the rule which is which: "
    if not suspects:
        return f"{says}`attention: {{q: …, k: …, v: …, out: …, heads: …}}`, or `qkv: …` for one fused layer"
    layer, below = suspects[0]
    paths = [site.layer.removeprefix(f"{layer}.") for site in below]
    fused = [site for site in below if site.geometry and site.geometry.out_channels % 3 == 0]
    fused = [s for s in fused if s.geometry and s.geometry.out_channels >= 3 * s.geometry.in_channels]
    if len(below) < 4 and fused:  # noqa: PLR2004
        qkv = fused[0].layer.removeprefix(f"{layer}.")
        return (
            f"{says}`attention: {{qkv: {qkv}, out: {next((p for p in paths if p != qkv), '…')}, heads: …}}`"
        )
    ends = {path.rpartition(".")[2].removeprefix("to_"): path for path in paths}
    if "kv" in ends:
        message = f"`{ends['kv']}` holds keys and values together, which `attention:` has no word for; begin "
        return message + "these layers one by one, with rules on `kind: linear`"
    told = [_called(ends, *starts) for starts in (("q",), ("k",), ("v",), ("o", "proj"))]
    q, k, v, out = paths[:4] if "…" in told and len(paths) >= 4 else told  # noqa: PLR2004
    return f"{says}`attention: {{q: {q}, k: {k}, v: {v}, out: {out}, heads: …}}`"


def _called(ends: dict[str, str], *starts: str) -> str:
    """Return the layer whose name starts so; an ellipsis where none does."""
    return next((path for end, path in ends.items() if end.startswith(starts)), "…")


def _sizes(site: Site) -> str:
    assert site.geometry is not None
    return f"{site.geometry.in_channels} → {site.geometry.out_channels}"
