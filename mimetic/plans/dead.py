"""Why a rule matches nothing: the name first, then the other conditions, then the parameter."""

from collections.abc import Sequence
from difflib import get_close_matches

from mimetic.graph.config import Declared, Match
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Site
from mimetic.plans.declared import holds
from mimetic.plans.matching import views
from mimetic.plans.unrecognised import SHOWN, sizes, unrecognised
from mimetic.recipe.rule import Rule

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
    if rule.declared is not None and not declared:
        return _undeclared(rule, rule.declared, message, graph)
    told = None if rule.acts_on is None else unrecognised(rule, graph, everything)
    if told is not None:
        return f"{message}: {told[0]}", told[1]
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
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} … ({len(names)} in all)"


def _undeclared(rule: Rule, declared: Declared, message: str, graph: Graph) -> Reason:
    """Say where a declaration would hold, whose rule matches no layer."""
    owners = {site.layer: site for site in graph.sites}
    paths = listing(declared.layers)
    places = [layer for layer in graph.classes if holds(declared, layer, owners)]
    if rule.match.layer is not None:
        what = f"no layer is named like `{rule.match.layer}`"
    elif rule.match.class_ is not None:
        what = f"no layer is of class `{rule.match.class_}`"
    else:
        linears = [site for site in graph.sites if site.kind == "linear" and site.geometry is not None]
        have = f"the model's linear layers are {sizes(linears)}" if linears else None
        return f"{message}: no layer has linear layers {paths} below it", have
    classes = sorted({graph.classes[layer][0] for layer in places})
    hint = f"linear layers {paths} are below {listing(places)}, of class {listing(classes)}"
    return f"{message}: {what}", hint if places else f"no layer has linear layers {paths} below it"


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
