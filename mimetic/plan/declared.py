"""Attention sites a rule declares: `attention: {qkv: to_qkv, out: to_out, heads: 3}`, checked by shape."""

from mimetic.errors import UserError
from mimetic.graph import Attention, Graph, Parameter, Site, Slot
from mimetic.graph.structure import head_sizes, stacked
from mimetic.plan.matching import mismatch
from mimetic.recipe.attention import DeclaredAttention
from mimetic.recipe.rule import Rule


def declared_sites(rule: Rule, declared: DeclaredAttention, graph: Graph) -> tuple[Site, ...]:
    """Return a site for each layer the rule matches, in the order of execution.

    Raises:
        UserError: If a named layer is not there, is not linear, or its shape contradicts the heads.
    """
    linears = {site.layer: site for site in graph.sites}
    order = {layer: i for i, layer in enumerate(linears)}
    anywhere = rule.match.model_copy(update={"kind": None, "depth": None})
    found = [
        _site(layer, classes, declared, linears)
        for layer, classes in graph.classes.items()
        if mismatch(anywhere, Site(layer, "attention", classes, None, ())) is None
    ]
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
            structure=site.structure,
        )
        for i, site in enumerate(found)
    )


def _site(
    layer: str, classes: tuple[str, ...], declared: DeclaredAttention, linears: dict[str, Site]
) -> Site:
    split = (declared.q, declared.k, declared.v)
    paths = (declared.qkv,) if declared.qkv is not None else tuple(path for path in split if path is not None)
    maps = {path: _linear(layer, path, linears) for path in (*paths, declared.out)}
    outputs = [_width(maps[path])[1] for path in paths]
    groups = declared.heads if declared.kv_heads is None else declared.kv_heads
    if declared.qkv is not None:  # queries, keys and values of one width
        width, rest = divmod(outputs[0], declared.heads + 2 * groups)
        outputs = [declared.heads * width, groups * width, groups * width] if rest == 0 else [*outputs, 0, 0]
    inputs = _width(maps[declared.out])[0]
    sizes = head_sizes((outputs[0], outputs[1], outputs[2], inputs), heads=declared.heads, width=None)
    if sizes is None or sizes[1] != groups:
        told = ", ".join(f"`{path}` {_width(site)[0]} → {_width(site)[1]}" for path, site in maps.items())
        shared = f" over {groups} of keys and values" if groups != declared.heads else ""
        message = f"`{layer}` is no attention of {declared.heads} heads{shared} as declared: {told}"
        raise UserError(message)
    slots: list[Slot] = []
    names = [("q", "k", "v")] if declared.qkv is not None else [("q",), ("k",), ("v",)]
    for path, parts in zip(paths, names, strict=True):
        widths = {name: outputs["qkv".index(name)] for name in parts}
        slots += _slots(path, widths, maps[path])
    slots += _slots(declared.out, {"out": _width(maps[declared.out])[1]}, maps[declared.out])
    parameters = tuple(
        Parameter(p.name, f"{path}.{p.local}", p.shape, p.dtype, p.aliases)
        for path, site in maps.items()
        for p in site.parameters
        if p.local in {"weight", "bias"}
    )
    calls = max((site.calls for site in maps.values() if site.calls is not None), default=None)
    structure = Attention(tuple(slots), *sizes)
    return Site(layer, "attention", classes, None, parameters, calls=calls, structure=structure)


def _linear(layer: str, path: str, linears: dict[str, Site]) -> Site:
    name = f"{layer}.{path}" if layer else path
    site = linears.get(name)
    if site is None or site.kind != "linear" or site.geometry is None:
        below = [n for n, s in linears.items() if s.kind == "linear" and (not layer or n.startswith(layer))]
        what = "there is none of that name" if site is None else f"it is of kind `{site.kind}`"
        have = ", ".join(f"`{n.removeprefix(layer).lstrip('.')}`" for n in below[:8])
        listed = f"below `{layer}` there are {have}" if have else f"below `{layer}` there are none"
        message = (
            f"`{name}` is declared as a linear layer of an attention, but {what}; linear layers {listed}"
        )
        raise UserError(message)
    return site


def _width(site: Site) -> tuple[int, int]:
    assert site.geometry is not None
    return site.geometry.in_channels, site.geometry.out_channels


def _slots(path: str, parts: dict[str, int], site: Site) -> list[Slot]:
    assert site.geometry is not None
    bias = any(parameter.local == "bias" for parameter in site.parameters)
    return stacked(path, parts, transposed=site.geometry.transposed, bias=bias)
