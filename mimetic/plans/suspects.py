"""What of a model may be an attention that was not recognised, and the block that would declare it.

Which linear layer is which map is told by their names, or by shapes that leave little else: one layer with
three times the outputs that another has inputs.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import permutations

from mimetic.graph.site import Graph, Site
from mimetic.graph.structure import head_sizes

Linears = Mapping[str, Site]
"""The linear layers below a layer, by their names there."""

Suspect = tuple[str, Linears]
"""A layer that may be a site of several layers, and its linear layers."""

_FUSED = frozenset({"c_attn", "query_key_value", "in_proj"})
_OUTS = ("o", "proj", "merge", "dense", "c_proj")
_SPLITS = (("qkv",), ("q", "kv"), ("q", "k", "v"))
_FOUR = 4


def attention_suspects(graph: Graph) -> list[Suspect]:
    """Return layers that may be attentions: the innermost whose maps can be told, else those so called."""
    several = [s for s in ((layer, linears_below(graph, layer)) for layer in graph.classes) if len(s[1]) > 1]
    speaking: list[Suspect] = [(layer, below) for layer, below in several if _speaks(graph, layer)]
    told = [s for s in several if _roles(s[1], order=s in speaking) is not None]
    inner = innermost(told)
    return inner if inner else speaking


def innermost(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return the suspects that have no other below them."""
    names = [layer for layer, _ in suspects]
    return [s for s in suspects if not any(_inside(other, s[0]) for other in names)]


def linears_below(graph: Graph, layer: str) -> Linears:
    """Return the linear layers below a layer, by their names there."""
    within = f"{layer}." if layer else ""
    below = {s.layer.removeprefix(within): s for s in graph.sites if s.layer.startswith(within)}
    return {path: s for path, s in below.items() if s.kind == "linear" and s.geometry is not None}


def declaration(graph: Graph, suspects: Sequence[Suspect]) -> str:
    """Write what to add to the rule for the first suspect, as far as its layers tell."""
    roles = _roles(suspects[0][1], order=True) if suspects else None
    if roles is None:
        says = "match the layer that holds them by name, and say in the rule which is which: "
        return f"{says}`attention: {{q: …, k: …, v: …, out: …, heads: …}}`, or `qkv: …` for one fused layer"
    layer, below = suspects[0]
    block = ", ".join(f"{role}: {quoted(path)}" for role, path in roles.items())
    kept = {heads_kept(graph, other) for other, _ in suspects}
    block += _heads(kept, {role: below[path] for role, path in roles.items()})
    hint = f"declare it: `match: {condition(graph, layer)}`, `attention: {{{block}}}`"
    whole = next((role for role in ("qkv", "kv") if role in roles), None)
    order = {"qkv": "all queries, then all keys, then all values", "kv": "all keys, then all values"}
    return hint if whole is None else f"{hint}, if the outputs of `{roles[whole]}` are {order[whole]}"


def condition(graph: Graph, layer: str) -> str:
    """Write a condition on a layer and its like: its class if that speaks of attention, else its name."""
    name = graph.classes[layer][0]
    if not layer or "attn" in name.lower() or "attention" in name.lower():
        return f"{{class: {name}}}"
    alike = (re.sub(r"(^|_)\d+$", r"\1\\d+", part) for part in layer.split("."))
    return "'" + r"\.".join(alike) + "'"


def quoted(path: str) -> str:
    """Write a layer's name as YAML reads it as text."""
    return f"'{path}'" if path[0].isdecimal() else path


def widths(site: Site) -> tuple[int, int]:
    """Return the inputs and outputs of a linear layer."""
    assert site.geometry is not None
    return site.geometry.in_channels, site.geometry.out_channels


def _speaks(graph: Graph, layer: str) -> bool:
    """Tell whether a layer's name or class speaks of attention."""
    said = f"{layer.rpartition('.')[2]} {graph.classes[layer][0]}".lower()
    return "attn" in said or "attention" in said


def _inside(layer: str, other: str) -> bool:
    return layer != other and (not other or layer.startswith(f"{other}."))


def _roles(below: Linears, *, order: bool) -> dict[str, str] | None:
    """Return which linear layer is which map by their names, else by shape, or by order if we may."""
    called = {path: _role(path) for path in below}
    for maps in _SPLITS:
        held = {role: path for path, role in called.items() if role in maps}
        rest = [path for path in below if called[path] not in maps]
        outs = rest if len(rest) == 1 else [path for path in rest if called[path] == "out"]
        if len(held) == len(maps) == len(below) - len(rest) and len(outs) == 1:
            return {role: held[role] for role in maps} | {"out": outs[0]}
    for (first, whole), (second, last) in permutations(below.items(), 2) if len(below) < _FOUR - 1 else ():
        if widths(whole)[1] == 3 * widths(last)[0]:
            return {"qkv": first, "out": second}
    if order and len(below) == _FOUR and len({widths(site) for site in below.values()}) == 1:
        return dict(zip(("q", "k", "v", "out"), below, strict=True))
    return None


def _role(path: str) -> str:
    """Return the map a layer's name speaks of, empty if of none: `attn.to_out.0` is `out`."""
    words = [word for word in path.lower().split(".") if not word.isdecimal()]
    word = words[-1].removeprefix("to_").removeprefix("w_").removeprefix("w") if words else ""
    if "qkv" in word or word in _FUSED:
        return "qkv"
    if "kv" in word or word == "key_value":
        return "kv"
    if word.startswith(("q", "k", "v")):
        return word[0]
    return "out" if word.startswith(_OUTS) else ""


def heads_kept(graph: Graph, layer: str) -> int | None:
    """Return the number of heads a layer keeps, itself or below; None if none or several."""
    told = {heads for name, heads in graph.heads.items() if name == layer or _inside(name, layer)}
    return told.pop() if len(told) == 1 else None


def _heads(kept: set[int | None], roles: Mapping[str, Site]) -> str:
    """Write the number of heads, and of keys and values where they are fewer.

    Args:
        kept: Those of every layer that may be an attention; where they differ, each layer's own will do.
        roles: The linear layers of the first by what they are.
    """
    if len(kept) > 1 and None not in kept:
        return ""
    inputs = widths(roles["out"])[0]
    outputs = {role: widths(site)[1] for role, site in roles.items()}
    if "qkv" in roles:
        queries, keys = inputs, (outputs["qkv"] - inputs) // 2
    else:
        queries, keys = outputs["q"], outputs["kv"] // 2 if "kv" in roles else outputs["k"]
    values = outputs.get("v", keys)
    heads = next(iter(kept))
    sizes = head_sizes((queries, keys, values, inputs), heads=heads, width=None)
    if heads is None or sizes is None:
        return ", heads: …"
    return f", heads: {heads}" if sizes[1] == heads else f", heads: {heads}, kv_heads: {sizes[1]}"
