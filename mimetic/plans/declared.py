"""Sites a rule declares, checked by shape: `attention: {qkv: to_qkv, out: to_out, heads: 3}`, `mlp: …`.

A rule that names layers, or a class, declares a site at each of them, and one that lacks a linear layer
is a mistake; a rule that names neither declares one wherever all the linear layers are.
"""

from dataclasses import replace

from mimetic.errors import UserError
from mimetic.graph.config import CompositeKind, Declared, DeclaredAttention, DeclaredMlp
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.graph.structure import Attention, Mlp, Position, Slot, Structure, head_sizes, stacked
from mimetic.plans.suspects import heads_kept
from mimetic.recipe.rule import Rule

_SHOWN = 12

Linears = dict[str, Site]
"""Linear layers by the names a declaration has for them."""


def declared_sites(rule: Rule, graph: Graph) -> tuple[Site, ...]:
    """Return a site for each layer the rule matches, in the order of execution; none if it declares none.

    Raises:
        UserError: If a named layer is not there, is not linear, or its shape contradicts the declaration.
    """
    declared = rule.declared
    if declared is None:
        return ()
    owners = {site.layer: site for site in graph.sites}
    order = {layer: i for i, layer in enumerate(owners)}
    anywhere = rule.match.layer is None and rule.match.class_ is None
    conditions = rule.match.model_copy(update={"kind": None, "depth": None})
    found = [
        _site(layer, classes, declared, owners, heads_kept(graph, layer))
        for layer, classes in graph.classes.items()
        if mismatch(conditions, Site(layer, "attention", classes, None, ())) is None
        and (not anywhere or holds(declared, layer, owners))
    ]
    grids = {site.structure.grid for site in graph.composites if isinstance(site.structure, Position)}
    grid = grids.pop() if len(grids) == 1 else None
    found.sort(key=lambda site: min(order[p.name.rpartition(".")[0]] for p in site.parameters))
    last = max(len(found) - 1, 1)
    return tuple(
        Site(
            layer=site.layer,
            kind=site.kind,
            classes=site.classes,
            geometry=None,
            parameters=site.parameters,
            depth=i / last,
            calls=site.calls,
            structure=replace(site.structure, grid=grid)
            if isinstance(site.structure, Attention)
            else site.structure,
        )
        for i, site in enumerate(found)
    )


def holds(declared: Declared, layer: str, owners: dict[str, Site]) -> bool:
    """Tell whether all the layers a declaration names are linear layers below a layer."""
    sites = (owners.get(_below(layer, path)) for path in declared.layers)
    return all(site is not None and site.kind == "linear" and site.geometry is not None for site in sites)


def _site(
    layer: str, classes: tuple[str, ...], declared: Declared, owners: dict[str, Site], kept: int | None
) -> Site:
    linears = {path: _linear(layer, path, declared, owners) for path in declared.layers}
    structure: Structure
    if isinstance(declared, DeclaredAttention):
        structure = _attention(declared, layer, linears, kept)
    else:
        structure = _mlp(declared, layer, linears)
    parameters = tuple(
        Parameter(p.name, f"{path}.{p.local}", p.shape, p.dtype, p.aliases)
        for path, site in linears.items()
        for p in site.parameters
        if p.local in {"weight", "bias"}
    )
    calls = max((site.calls for site in linears.values() if site.calls is not None), default=None)
    kind: CompositeKind = "attention" if isinstance(structure, Attention) else "mlp"
    return Site(layer, kind, classes, None, parameters, calls=calls, structure=structure)


def _attention(declared: DeclaredAttention, layer: str, linears: Linears, kept: int | None) -> Attention:
    """Return the attention, of the declared heads or else of those the layer keeps, if shapes agree."""
    heads = kept if declared.heads is None else declared.heads
    if heads is None:
        raise UserError(f"`{layer}` keeps no number of heads: declare them, `heads: …`")
    groups = heads if declared.kv_heads is None else declared.kv_heads
    widths, sizes = _divided(declared, linears, heads, groups)
    if sizes is None:
        shared = f" over {groups} of keys and values" if groups != heads else ""
        message = f"`{layer}` is no attention of {heads} heads{shared} as declared: {_told(linears)}"
        others = [h for h in range(1, max(widths["q"], heads) + 1) if _fit(declared, linears, h)]
        would = f"; {', '.join(map(str, others[:_SHOWN]))} would fit" if others else ""
        raise UserError(message + would + (" …" if len(others) > _SHOWN else ""))
    slots = [
        slot
        for path, maps in declared.inner
        for slot in _slots(path, {name: widths[name] for name in maps}, linears[path])
    ]
    slots += _slots(declared.out, {"out": _width(linears[declared.out])[1]}, linears[declared.out])
    other = f"declared with {heads} heads, where the layer itself keeps {kept}"
    return Attention(tuple(slots), *sizes, notes=() if kept in {None, heads} else (other,))


def _divided(
    declared: DeclaredAttention, linears: Linears, heads: int, groups: int
) -> tuple[dict[str, int], tuple[int, int, int, int] | None]:
    """Return how many outputs each inner map has, and (H, G, k, m); None where they do not divide so."""
    widths: dict[str, int] = {}
    for path, maps in declared.inner:
        outputs = _width(linears[path])[1]
        shares = {name: heads if name == "q" else groups for name in maps}
        width = outputs // sum(shares.values())
        parts = {name: share * width for name, share in shares.items()}
        if len(maps) > 1 and sum(parts.values()) != outputs:
            return {"q": outputs}, None
        widths |= parts if len(maps) > 1 else {maps[0]: outputs}
    inputs = _width(linears[declared.out])[0]
    if 0 in widths.values():
        return widths, None
    sizes = head_sizes((widths["q"], widths["k"], widths["v"], inputs), heads=heads, width=None)
    return widths, sizes if sizes is not None and sizes[1] == groups else None


def _fit(declared: DeclaredAttention, linears: Linears, heads: int) -> bool:
    """Tell whether another number of heads would do, the rest as declared."""
    groups = heads if declared.kv_heads is None else declared.kv_heads
    return heads % groups == 0 and _divided(declared, linears, heads, groups)[1] is not None


def _mlp(declared: DeclaredMlp, layer: str, linears: Linears) -> Mlp:
    first, second = _width(linears[declared.fc1]), _width(linears[declared.fc2])
    if first != second[::-1]:
        message = f"`{layer}` is no MLP pair as declared: {_told(linears)}; "
        raise UserError(message + "the second layer leads back to the width the first came from")
    slots = _slots(declared.fc1, {"fc1": first[1]}, linears[declared.fc1])
    slots += _slots(declared.fc2, {"fc2": second[1]}, linears[declared.fc2])
    return Mlp(tuple(slots))


def _linear(layer: str, path: str, declared: Declared, owners: dict[str, Site]) -> Site:
    name = _below(layer, path)
    site = owners.get(name)
    if site is None or site.kind != "linear" or site.geometry is None:
        within = f"{layer}." if layer else ""
        below = [n for n, s in owners.items() if s.kind == "linear" and n.startswith(within)]
        what = "there is none of that name" if site is None else f"it is of kind `{site.kind}`"
        have = ", ".join(f"`{n.removeprefix(within)}`" for n in below[:8])
        place = f"below `{layer}`" if layer else "in the model"
        whole = "an attention" if isinstance(declared, DeclaredAttention) else "an MLP pair"
        raise UserError(
            f"`{name}` is declared as a linear layer of {whole}, but {what}; linear layers {place} "
            + (f"there are {have}" if have else "there are none")
        )
    if not any(parameter.local == "weight" for parameter in site.parameters):
        raise UserError(
            f"`{name}` is declared as a map of its own, but its weight is tied to another layer's"
        )
    return site


def _below(layer: str, path: str) -> str:
    return f"{layer}.{path}" if layer else path


def _told(linears: Linears) -> str:
    return ", ".join(f"`{path}` {_width(site)[0]} → {_width(site)[1]}" for path, site in linears.items())


def _width(site: Site) -> tuple[int, int]:
    assert site.geometry is not None
    return site.geometry.in_channels, site.geometry.out_channels


def _slots(path: str, parts: dict[str, int], site: Site) -> list[Slot]:
    assert site.geometry is not None
    bias = any(parameter.local == "bias" for parameter in site.parameters)
    return stacked(path, parts, transposed=site.geometry.transposed, bias=bias)
