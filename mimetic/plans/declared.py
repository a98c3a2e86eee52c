"""Find the sites a rule declares: `attention: {qkv: to_qkv, out: to_out, heads: 3}`, `mlp: {fc1: …, fc2: …}`.

A rule that names layers or a class declares a site at each layer it matches, and a missing linear layer
is an error. A rule that names neither declares a site wherever all the linear layers exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.graph.config import CompositeKind, Declared, DeclaredAttention, DeclaredMlp
from mimetic.graph.matching import mismatch
from mimetic.graph.names import joined
from mimetic.graph.site import Graph, Site, depths
from mimetic.graph.sites import on_one_grid
from mimetic.graph.structure import Attention, Mlp, Slot, Structure, head_sizes, stacked
from mimetic.recipe.rule import Rule

_SHOWN, _LISTED = 12, 8
"""Most numbers of heads, and most layers, in a message."""

Linears = Mapping[str, Site]
"""Linear layers by their names below a layer."""


def declared_sites(rule: Rule, graph: Graph) -> tuple[Site, ...]:
    """Return a site for each layer the rule matches, in order of execution; none if it declares none.

    Raises:
        UserError: If a named layer is missing or not linear, or its shape contradicts the declaration.
    """
    declared = rule.declared
    if declared is None:
        return ()
    owners = {site.layer: site for site in graph.sites}
    # Kind and depth describe the site that is declared, not the layer where it is declared.
    conditions = rule.match.model_copy(update={"kind": None, "depth": None})
    anywhere = rule.match.layer is None and rule.match.class_ is None
    sites = [
        _site(layer, classes, declared, owners, heads_of(graph, layer))
        for layer, classes in graph.classes.items()
        if mismatch(conditions, Site(layer, "attention", classes, None, ())) is None
        and (not anywhere or has_linears(declared, layer, owners))
    ]
    # Depth is the fraction among the declared sites, in order of execution.
    order = {layer: i for i, layer in enumerate(owners)}
    sites.sort(key=lambda site: min(order[p.name.rpartition(".")[0]] for p in site.parameters))
    return tuple(
        replace(site, depth=depth, structure=on_one_grid(site.structure, graph.composites))
        for site, depth in zip(sites, depths([site.kind for site in sites]), strict=True)
    )


def has_linears(declared: Declared, layer: str, owners: Mapping[str, Site]) -> bool:
    """Return whether all the layers a declaration names are linear layers below a layer."""
    sites = (owners.get(joined(layer, path)) for path in declared.layers)
    return all(site is not None and is_linear(site) for site in sites)


def is_linear(site: Site) -> bool:
    """Return whether a site is a linear layer that is one map."""
    return site.kind == "linear" and site.geometry is not None


def linears_below(sites: Sequence[Site], layer: str) -> dict[str, Site]:
    """Return the linear layers below a layer, by their names there."""
    prefix = f"{layer}." if layer else ""
    return {s.layer.removeprefix(prefix): s for s in sites if s.layer.startswith(prefix) and is_linear(s)}


def widths(site: Site) -> tuple[int, int]:
    """Return the inputs and outputs of a linear layer."""
    assert site.geometry is not None
    return site.geometry.in_channels, site.geometry.out_channels


def heads_of(graph: Graph, layer: str) -> int | None:
    """Return the number of heads that a layer stores, itself or below it; None if none or several."""
    prefix = f"{layer}." if layer else ""
    heads = {h for name, h in graph.heads.items() if name == layer or name.startswith(prefix)}
    return heads.pop() if len(heads) == 1 else None


def linears_text(linears: Linears) -> str:
    """List linear layers with their widths, `to_q` 24 → 24; the first of many."""
    pairs = [f"`{path}` {' → '.join(map(str, widths(site)))}" for path, site in linears.items()]
    return ", ".join(pairs[:_LISTED]) + (f" … ({len(pairs)} in all)" if len(pairs) > _LISTED else "")


def _site(
    layer: str, classes: tuple[str, ...], declared: Declared, owners: Mapping[str, Site], stored: int | None
) -> Site:
    """Return the declared site at a layer; `stored` is the number of heads the layer stores."""
    linears = {path: _linear(layer, path, declared, owners) for path in declared.layers}
    kind: CompositeKind
    structure: Structure
    if isinstance(declared, DeclaredAttention):
        kind, structure = "attention", _attention(declared, layer, linears, stored)
    else:
        kind, structure = "mlp", _mlp(declared, layer, linears)
    parameters = tuple(
        replace(p, local=f"{path}.{p.local}")
        for path, site in linears.items()
        for p in site.parameters
        if p.local in {"weight", "bias"}
    )
    calls = max((site.calls for site in linears.values() if site.calls is not None), default=None)
    return Site(layer, kind, classes, None, parameters, calls=calls, structure=structure)


def _attention(declared: DeclaredAttention, layer: str, linears: Linears, stored: int | None) -> Attention:
    """Return the attention with the declared heads, or else those the layer stores, if the shapes agree."""
    heads = stored if declared.heads is None else declared.heads
    if heads is None:
        raise UserError(f"cannot infer the number of heads of `{layer}`; set `heads: …`", code="MIM-P001")
    groups = heads if declared.kv_heads is None else declared.kv_heads
    # The shapes must allow that many heads; if not, the message names those that fit.
    outputs, sizes = _divided(declared, linears, heads, groups)
    if sizes is None:
        grouped = f" and {groups} of keys and values" if groups != heads else ""
        others = [h for h in range(1, max(outputs["q"], heads) + 1) if _fits(declared, linears, h)]
        more = " …" if len(others) > _SHOWN else ""
        fitting = f"; {', '.join(map(str, others[:_SHOWN]))}{more} would fit" if others else ""
        raise UserError(
            f"`{layer}` has no attention of {heads} heads{grouped} as declared: "
            f"{linears_text(linears)}{fitting}",
            code="MIM-P002",
        )
    slots = [
        slot
        for path, maps in declared.inner
        for slot in _slots(path, {name: outputs[name] for name in maps}, linears[path])
    ]
    slots += _slots(declared.out, {"out": widths(linears[declared.out])[1]}, linears[declared.out])
    note = f"declared with {heads} heads, but the layer itself has {stored}"
    return Attention(tuple(slots), *sizes, notes=() if stored in {None, heads} else (note,))


def _divided(
    declared: DeclaredAttention, linears: Linears, heads: int, groups: int
) -> tuple[dict[str, int], tuple[int, int, int, int] | None]:
    """Return the outputs of each inner map, and (H, G, k, m); None where they cannot be so divided."""
    outputs: dict[str, int] = {}
    for path, maps in declared.inner:
        total = widths(linears[path])[1]
        shares = {name: heads if name == "q" else groups for name in maps}
        width = total // sum(shares.values())
        parts = {name: share * width for name, share in shares.items()}
        if len(maps) > 1 and sum(parts.values()) != total:
            return {"q": total}, None
        outputs |= parts if len(maps) > 1 else {maps[0]: total}
    if 0 in outputs.values():
        return outputs, None
    inputs = widths(linears[declared.out])[0]
    sizes = head_sizes((outputs["q"], outputs["k"], outputs["v"], inputs), heads=heads, width=None)
    return outputs, sizes if sizes is not None and sizes[1] == groups else None


def _fits(declared: DeclaredAttention, linears: Linears, heads: int) -> bool:
    """Return whether another number of heads would fit, the rest as declared."""
    groups = heads if declared.kv_heads is None else declared.kv_heads
    return heads % groups == 0 and _divided(declared, linears, heads, groups)[1] is not None


def _mlp(declared: DeclaredMlp, layer: str, linears: Linears) -> Mlp:
    first, second = widths(linears[declared.fc1]), widths(linears[declared.fc2])
    if first != second[::-1]:
        raise UserError(
            f"`{layer}` has no MLP pair as declared: {linears_text(linears)}; "
            "the second layer must map back to the input width of the first",
            code="MIM-P003",
        )
    slots = _slots(declared.fc1, {"fc1": first[1]}, linears[declared.fc1])
    slots += _slots(declared.fc2, {"fc2": second[1]}, linears[declared.fc2])
    return Mlp(tuple(slots))


def _linear(layer: str, path: str, declared: Declared, owners: Mapping[str, Site]) -> Site:
    """Return the linear layer a declaration names."""
    name = joined(layer, path)
    site = owners.get(name)
    if site is None or not is_linear(site):
        problem = "there is no layer of that name" if site is None else f"it is of kind `{site.kind}`"
        below = list(linears_below(list(owners.values()), layer))
        what = "an attention" if isinstance(declared, DeclaredAttention) else "an MLP pair"
        raise UserError(
            f"`{name}` is declared as a linear layer of {what}, but {problem}; linear layers "
            f"{f'below `{layer}`' if layer else 'in the model'}: {listed(below, 8) if below else 'none'}",
            code="MIM-P004",
        )
    if not any(parameter.local == "weight" for parameter in site.parameters):
        raise UserError(
            f"`{name}` is declared as a separate map, but its weight is tied to another layer's",
            code="MIM-P005",
        )
    return site


def _slots(path: str, parts: dict[str, int], site: Site) -> list[Slot]:
    assert site.geometry is not None
    bias = any(parameter.local == "bias" for parameter in site.parameters)
    return stacked(path, parts, transposed=site.geometry.transposed, bias=bias)
