"""Explain why a rule matches nothing, and suggest what to write instead.

Where a rule acts on attentions, position tables, state spaces or MLP pairs and none was recognized, the
message shows the layers that look like one and the declaration that would make the rule match.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

from mimetic.config.patterns import fullmatch
from mimetic.config.suggest import did_you_mean, listed
from mimetic.graph.config import Declared
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Site, shape_text
from mimetic.graph.structure import head_sizes
from mimetic.plans.declared import (
    Linears,
    has_linears,
    heads_of,
    is_linear,
    linears_below,
    linears_text,
    widths,
)
from mimetic.plans.matching import applies_to
from mimetic.recipe.rule import Rule


class Message(NamedTuple):
    """What is wrong with a rule, how to repair it, and the code of the kind of mistake."""

    text: str
    hint: str | None
    code: str


class Candidate(NamedTuple):
    """A layer that may be a composite site, and the linear layers below it."""

    layer: str
    linears: Linears


Finding = tuple[str, str]
"""What was found in the model instead of a composite site, and a hint."""


def explain_no_match(rule: Rule, graph: Graph, declared: Sequence[Site] = ()) -> Message:
    """Explain why a rule matches nothing: the name first, then the other conditions, then the parameter.

    Args:
        rule: The rule.
        graph: The sites of the model.
        declared: The sites the rule declares.
    """
    start = f"rule `{rule.id}` matches nothing in this model"
    if rule.declared is not None and not declared:
        text, hint = _declared_nowhere(rule, rule.declared, graph)
        return Message(f"{start}: {text}", hint, "MIM-P020")
    sites = [site for site in (*graph.sites, *graph.composites, *declared) if applies_to(rule, site)]
    unrecognized = None if rule.acts_on is None else _unrecognized(rule, graph, sites)
    if unrecognized is not None:
        return Message(f"{start}: {unrecognized[0]}", unrecognized[1], "MIM-P021")
    pattern = rule.match.layer
    if pattern is not None:
        names = [site.layer for site in sites]
        sites = [site for site in sites if fullmatch(pattern, site.layer) is not None]
        if not sites:
            what = "layer" if rule.acts_on is None else f"site of kind `{rule.acts_on}`"
            text = f"{start}: no {what} is named like `{pattern}`"
            return Message(text, _similar_names(pattern, names, rule, graph), "MIM-P022")
    return _failed_condition(rule, graph, sites, start)


def _failed_condition(rule: Rule, graph: Graph, sites: Sequence[Site], start: str) -> Message:
    """Name the condition that fails at the sites whose name matches."""
    reasons = [(site, mismatch(rule.match, site)) for site in sites]
    fitting = [site for site, reason in reasons if reason is None]
    if fitting:
        param = "weight" if rule.match.param is None else rule.match.param
        text = f"{start}: {len(fitting)} layers fit, but none has a parameter `{param}`"
        have = sorted({p.local for site in fitting for p in site.parameters})
        return Message(text, f"their parameters are {listed(have, 8)}", "MIM-P023")
    if rule.match.layer is None:
        kinds = sorted({site.kind for site in (*graph.sites, *graph.composites)})
        return Message(start, f"the model has layers of kind {listed(kinds, 8)}", "MIM-P024")
    site, reason = reasons[0]
    text = f"{start}: {len(sites)} layers have a matching name, but of `{site.layer}`, {reason}"
    return Message(text, None, "MIM-P025")


def _similar_names(pattern: str, names: list[str], rule: Rule, graph: Graph) -> str:
    """Suggest names like a pattern that matches none."""
    if pattern in {site.kind for site in graph.sites}:
        return f"to match layers by their kind, write `{{kind: {pattern}}}`"
    part = f"(?:{pattern})" if "|" in pattern else pattern
    for wider in (rf"{part}\..*", rf".*\.{part}", f"{part}.*", f".*{part}", f".*{part}.*"):
        found = [name for name in names if fullmatch(wider, name) is not None]
        if found:
            return f"the whole name must match; `'{wider}'` matches {listed(found, 8)}"
    plain = pattern.replace("\\.", ".").replace("\\d+", "0")
    known = names if rule.acts_on is not None else [*names, *graph.layers]
    everything = f"layers are named {listed(names, 8)}" if names else "the model has no parameters"
    return did_you_mean(plain, dict.fromkeys(known), count=3) or everything


def _declared_nowhere(rule: Rule, declared: Declared, graph: Graph) -> tuple[str, str | None]:
    """Describe where a declaration would apply, if its rule matches no layer."""
    missing = f"no layer has linear layers {listed(declared.layers, 8)} below it"
    if rule.match.layer is not None:
        text = f"no layer is named like `{rule.match.layer}`"
    elif rule.match.class_ is not None:
        text = f"no layer is of class `{rule.match.class_}`"
    else:
        linears = {site.layer: site for site in graph.sites if is_linear(site)}
        return missing, f"the model's linear layers are {linears_text(linears)}" if linears else None
    owners = {site.layer: site for site in graph.sites}
    places = [layer for layer in graph.classes if has_linears(declared, layer, owners)]
    classes = sorted({graph.classes[layer][0] for layer in places})
    layers = f"linear layers {listed(declared.layers, 8)}"
    hint = f"{layers} are below {listed(places, 8)}, of class {listed(classes, 8)}"
    return text, hint if places else missing


def _unrecognized(rule: Rule, graph: Graph, sites: Sequence[Site]) -> Finding | None:
    """Describe what the model has instead of the sites of a rule's kind.

    None where there are such sites, and the rule names no layer that may be another one.
    """
    if not sites:
        return _FINDINGS[str(rule.acts_on)](graph)
    match, known = rule.match, {site.layer for site in sites}
    named = match.layer is not None or match.class_ is not None
    if rule.acts_on != "attention" or not named or any(mismatch(match, site) is None for site in sites):
        return None
    meant = [
        candidate
        for candidate in _attention_candidates(graph)
        if candidate.layer not in known
        and (match.layer is None or fullmatch(match.layer, candidate.layer) is not None)
        and (match.class_ is None or match.class_ in graph.classes[candidate.layer])
    ]
    found = _candidate_text(graph, meant) if meant else ""
    text = f"the layer it names was not recognized as an attention; {found}"
    return (text, _attention_hint(graph, meant)) if meant else None


def _no_attention(graph: Graph) -> Finding:
    candidates = _attention_candidates(graph)
    linears = linears_text(linears_below(graph.sites, ""))
    if candidates:
        found = _candidate_text(graph, candidates)
    else:
        found = (
            f"no layer looks like one; its linear layers are {linears}" if linears else "nor a linear layer"
        )
    return f"no attention was recognized in it; {found}", _attention_hint(graph, candidates)


def _no_position(graph: Graph) -> Finding:
    parameters = [p for site in graph.sites if site.kind in {"other", "embedding"} for p in site.parameters]
    tables = [p for p in parameters if len(p.shape) == 2 or (len(p.shape) == 3 and p.shape[0] == 1)]  # noqa: PLR2004
    shown = ", ".join(f"`{p.name}` {shape_text(p.shape)}" for p in tables[:8])
    found = f"parameters of such a shape: {shown}" if shown else "no parameter has such a shape"
    return "no position table was recognized in it", (
        f"position tables are recognized by names such as `pos_embed` and shapes (T, D) or (1, T, D); {found}"
    )


def _no_ssm(graph: Graph) -> Finding:
    text = "no state space was recognized in it"
    holder = next((s for s in graph.sites if any(p.local == "A_log" for p in s.parameters)), None)
    if holder is not None:
        # Mamba-2 has a `dt_bias`; Mamba projects to steps, inputs and outputs by `x_proj` and `dt_proj`.
        prefix = f"{holder.layer}." if holder.layer else ""
        below = {s.layer.removeprefix(prefix) for s in graph.sites if s.layer.startswith(prefix)}
        second = any(p.local == "dt_bias" for p in holder.parameters)
        needed = ("conv1d", "in_proj", "out_proj") if second else ("conv1d", "x_proj", "dt_proj")
        missing = listed(name for name in needed if name not in below)
        problem = f"no {missing}" if missing else "shapes that do not agree"
        text += f"; `{holder.layer}` of class {holder.classes[0]} has an `A_log`, but {problem}"
    return text, (
        "state spaces are recognized by `A_log` beside `in_proj`, `conv1d`, and `x_proj` or `dt_bias`; "
        "initialize others layer by layer, by rules on names"
    )


def _no_mlp(graph: Graph) -> Finding:
    pairs = _leaf_candidates(
        [
            Candidate(layer, below)
            for layer in graph.classes
            if _is_pair(below := linears_below(graph.sites, layer))
        ]
    )
    text = "no MLP pair was recognized in it"
    hint = "pairs are recognized by names such as `fc1`, `fc2` or `linear1`, `linear2`, and by their shapes"
    if not pairs:
        return text, f"{hint}; declare others by the names of their layers: `mlp: {{fc1: …, fc2: …}}`"
    first, second = (_quoted(path) for path in pairs[0].linears)
    block = f"`mlp: {{fc1: {first}, fc2: {second}}}`"
    return (
        f"{text}; {_candidate_text(graph, pairs)}",
        f"{hint}; declare it: `match: {_condition(graph, pairs[0].layer)}`, {block}",
    )


_FINDINGS: dict[str, Callable[[Graph], Finding]] = {
    "attention": _no_attention,
    "position": _no_position,
    "ssm": _no_ssm,
    "mlp": _no_mlp,
}


def _candidate_text(graph: Graph, candidates: Sequence[Candidate]) -> str:
    """Describe the first of several candidates."""
    layer, below = candidates[0]
    more = f" (and {len(candidates) - 1} more)" if len(candidates) > 1 else ""
    name = f"`{layer}`" if layer else "the model itself,"
    linears = {site.layer: site for site in below.values()}
    class_ = f"of class {graph.classes[layer][0]}{'' if layer else ','}"
    return f"{name} {class_}{more} looks like one: linear layers {linears_text(linears)}"


def _leaf_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that have no other below them."""
    names = [candidate.layer for candidate in candidates]
    return [c for c in candidates if not any(_is_below(name, c.layer) for name in names)]


def _is_below(layer: str, other: str) -> bool:
    return layer != other and (not other or layer.startswith(f"{other}."))


def _is_pair(linears: Linears) -> bool:
    """Return whether there are two linear layers, of which the second maps back to the width of the first."""
    match [widths(site) for site in linears.values()]:
        case [first, second]:
            return first == second[::-1] and first[0] != first[1]
    return False


def _attention_candidates(graph: Graph) -> list[Candidate]:
    """Return layers that may be attentions: the leaves whose maps can be inferred, else those so named."""
    several = [Candidate(layer, linears_below(graph.sites, layer)) for layer in graph.classes]
    several = [candidate for candidate in several if len(candidate.linears) > 1]
    by_name = [candidate for candidate in several if _names_attention(graph, candidate.layer)]
    inferred = [c for c in several if _roles(c.linears, by_order=c in by_name) is not None]
    return _leaf_candidates(inferred) or by_name


def _names_attention(graph: Graph, layer: str) -> bool:
    """Return whether a layer's name or class mentions attention."""
    text = f"{layer.rpartition('.')[2]} {graph.classes[layer][0]}".lower()
    return "attn" in text or "attention" in text


def _attention_hint(graph: Graph, candidates: Sequence[Candidate]) -> str:
    """Write the declaration to add to the rule for the first candidate, as far as it can be inferred."""
    roles = _roles(candidates[0].linears, by_order=True) if candidates else None
    if roles is None:
        return (
            "match the layer that contains them by name, and declare them in the rule: "
            "`attention: {q: …, k: …, v: …, out: …, heads: …}`, or `qkv: …` for one fused layer"
        )
    layer, below = candidates[0]
    block = ", ".join(f"{role}: {_quoted(path)}" for role, path in roles.items())
    stored = {heads_of(graph, candidate.layer) for candidate in candidates}
    block += _heads_text(stored, {role: below[path] for role, path in roles.items()})
    hint = f"declare it: `match: {_condition(graph, layer)}`, `attention: {{{block}}}`"
    if "qkv" in roles:
        return f"{hint}, if the outputs of `{roles['qkv']}` are all queries, then all keys, then all values"
    if "kv" in roles:
        return f"{hint}, if the outputs of `{roles['kv']}` are all keys, then all values"
    return hint


def _condition(graph: Graph, layer: str) -> str:
    """Write a condition on a layer and those like it: its class if that mentions attention, else its name."""
    name = graph.classes[layer][0]
    if not layer or "attn" in name.lower() or "attention" in name.lower():
        return f"{{class: {name}}}"
    alike = (re.sub(r"(^|_)\d+$", r"\1\\d+", part) for part in layer.split("."))
    return "'" + r"\.".join(alike) + "'"


def _quoted(path: str) -> str:
    """Write a layer's name as YAML reads it as text."""
    return f"'{path}'" if path[0].isdecimal() else path


def _roles(linears: Linears, *, by_order: bool) -> dict[str, str] | None:
    """Return which linear layer is which map: by names, else by shapes, or by order where that is allowed."""
    named = {path: _role(path) for path in linears}
    for maps in (("qkv",), ("q", "kv"), ("q", "k", "v")):
        inner = {role: path for path, role in named.items() if role in maps}
        rest = [path for path in linears if named[path] not in maps]
        outs = rest if len(rest) == 1 else [path for path in rest if named[path] == "out"]
        if len(inner) == len(maps) == len(linears) - len(rest) and len(outs) == 1:
            return {role: inner[role] for role in maps} | {"out": outs[0]}
    if len(linears) == 2:  # noqa: PLR2004 - a fused layer has three times the outputs that the other has inputs
        for first, last in permutations(linears, 2):
            if widths(linears[first])[1] == 3 * widths(linears[last])[0]:
                return {"qkv": first, "out": last}
    four = ("q", "k", "v", "out")
    if by_order and len(linears) == len(four) and len({widths(site) for site in linears.values()}) == 1:
        return dict(zip(four, linears, strict=True))
    return None


def _role(path: str) -> str:
    """Return the map that a layer's name suggests, empty if none: `attn.to_out.0` is `out`."""
    words = [word for word in path.lower().split(".") if not word.isdecimal()]
    word = words[-1].removeprefix("to_").removeprefix("w_").removeprefix("w") if words else ""
    if "qkv" in word or word in {"c_attn", "query_key_value", "in_proj"}:
        return "qkv"
    if "kv" in word or word == "key_value":
        return "kv"
    if word.startswith(("q", "k", "v")):
        return word[0]
    return "out" if word.startswith(("o", "proj", "merge", "dense", "c_proj")) else ""


def _heads_text(stored: set[int | None], roles: Mapping[str, Site]) -> str:
    """Write the number of heads, and of keys and values where they are fewer.

    Args:
        stored: The numbers of heads that the candidates store; where they differ, each layer uses its own.
        roles: The linear layers of the first candidate by their maps.
    """
    if len(stored) > 1 and None not in stored:
        return ""
    inputs = widths(roles["out"])[0]
    outputs = {role: widths(site)[1] for role, site in roles.items()}
    if "qkv" in roles:
        queries, keys = inputs, (outputs["qkv"] - inputs) // 2
    else:
        queries, keys = outputs["q"], outputs["kv"] // 2 if "kv" in roles else outputs["k"]
    heads = next(iter(stored))
    sizes = head_sizes((queries, keys, outputs.get("v", keys), inputs), heads=heads, width=None)
    if heads is None or sizes is None:
        return ", heads: …"
    return f", heads: {heads}" if sizes[1] == heads else f", heads: {heads}, kv_heads: {sizes[1]}"
