"""Find the sites of any network, where initializers act.

There is one site per layer with own parameters, and a composite site for parameters that act together
(`mimetic.graph.composites`). Sites are in the order of one forward without values (`mimetic.graph.trace`), or
of registration if no forward can be traced.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mimetic.ambient import fixed_settings
from mimetic.collector import paused_collector
from mimetic.errors import UserError
from mimetic.graph.adapters.reading import HEADS, number
from mimetic.graph.composites import composites
from mimetic.graph.computed import Computed
from mimetic.graph.config import SiteKind
from mimetic.graph.example import guesses
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import Walked, joined, walk
from mimetic.graph.own import own_parameters
from mimetic.graph.parts import experts_in, with_parts
from mimetic.graph.site import Geometry, Graph, Parameter, Site, depths
from mimetic.graph.structure import Attention, Position, Structure
from mimetic.graph.targets import Target, targets
from mimetic.graph.trace import Trace, trace

ExampleInput = Tensor | tuple[object, ...] | dict[str, object]
"""An input (N, …) of a forward, its positional arguments, or its keyword arguments."""


class _Draft(NamedTuple):
    """A site before its order among the others is known."""

    layer: str
    module: nn.Module
    kind: SiteKind
    geometry: Geometry | None
    parameters: tuple[Parameter, ...]
    tensors: tuple[nn.Parameter, ...]
    structure: Structure | None = None


def find_sites(model: nn.Module, example: ExampleInput | None = None) -> Graph:
    """Find the sites of a network, in order of execution.

    Args:
        model: Any module on any device, the meta device included, wrapped or not; unchanged.
        example: An input (N, …), a tuple of positional or a dictionary of keyword arguments, for the traced
            forward; guessed from the model if None. Only shapes and dtypes are used.

    Returns:
        The graph: its sites contain every parameter exactly once, tied ones at their first owner, and its
        composite sites combine some of them. Layers that the forward does not use come last, in order of
        registration, with `calls` 0. If no forward can be traced, all sites are in order of registration,
        `calls` is None and `note` gives the reason.

    Raises:
        UserError: If a parameter has no shape yet (lazy modules), or two have the same canonical name.
    """
    with paused_collector(), fixed_settings():
        return _find(model, example)


def _find(model: nn.Module, example: ExampleInput | None) -> Graph:
    # 1. Sites in order of registration: of layers, of stacked experts, and of several layers together.
    walked = list(walk(model))
    known = targets(walked)
    drafts = [part for draft in _drafts(walked, known) for part in _by_experts(draft)]
    together = _composite_drafts(walked, known)
    # 2. Their order is that of one forward, if it can be traced.
    inputs = (
        guesses(walked) if example is None else [example if isinstance(example, tuple | dict) else (example,)]
    )
    traced, reason = trace(model, inputs)
    if traced is not None:
        drafts, together = _in_order(drafts, traced), _in_order(together, traced, _holders(walked))
    # 3. Depths, grids and stored parts depend on the other sites.
    names = _class_names(walked)
    together = [draft._replace(structure=on_one_grid(draft.structure, together)) for draft in together]
    sites, combined = with_parts(_placed(drafts, traced), _placed(together, traced), walked)
    return Graph(
        sites=tuple(sites),
        traced=traced is not None,
        note=None if reason is None else f"the forward could not be traced: {reason}",
        layers=tuple(names),
        composites=tuple(combined),
        classes=names,
        heads=_heads(walked),
    )


def _drafts(walked: Sequence[Walked], known: Mapping[str, Target]) -> list[_Draft]:
    """Describe the sites in order of registration."""
    computed_by: dict[int, dict[str, Computed]] = {}
    for found in (target.tensor for target in known.values()):
        if isinstance(found, Computed):
            computed_by.setdefault(id(found.layer), {})[found.local] = found
    drafts: list[_Draft] = []
    seen: set[int] = set()
    for _, layer, module in walked:
        if id(module) in seen:
            continue
        seen.add(id(module))
        # A computed weight stands for its parts; a tied tensor belongs to its first owner.
        computed = computed_by.get(id(module), {})
        own = {local: p for local, p in own_parameters(module).items() if p is not None}
        owned = [
            _parameter(joined(layer, local), local, target)
            for local in (*computed, *own)
            if (target := known.get(joined(layer, local))) is not None
            and (local in computed or target.tensor is own[local])
        ]
        if owned:
            kind, geometry = kind_and_geometry(module)
            stored = [p for found in computed.values() for p in found.stored.values()]
            drafts.append(
                _Draft(layer, module, kind, geometry, tuple(owned), tuple({*own.values(), *stored}))
            )
    return drafts


def _by_experts(draft: _Draft) -> Iterator[_Draft]:
    """Yield the draft of a linear layer for each stack of experts in a layer, and one of the rest."""
    stacks = experts_in(draft.module)
    rest = tuple(p for p in draft.parameters if p.local not in stacks)
    for parameter in draft.parameters:
        if parameter.local in stacks:
            experts, geometry = stacks[parameter.local]
            layer = draft.layer if parameter.local == "weight" else parameter.name
            parameters = (replace(parameter, experts=experts), *(rest if layer == draft.layer else ()))
            tensor = own_parameters(draft.module)[parameter.local]
            yield draft._replace(
                layer=layer,
                kind="linear",
                geometry=geometry,
                parameters=parameters,
                tensors=() if tensor is None else (tensor,),
            )
    if rest and "weight" not in stacks:
        yield draft._replace(parameters=rest)


def _composite_drafts(walked: Sequence[Walked], known: Mapping[str, Target]) -> list[_Draft]:
    """Describe the composite sites in order of registration."""
    names = {alias: name for name, target in known.items() for alias in (name, *target.aliases)}
    drafts: list[_Draft] = []
    for layer, module, found, own in composites(walked, names):
        described = tuple(_parameter(name, local, known[name]) for local, name in own.items())
        tensors = tuple(p for name in own.values() for p in known[name].same)
        drafts.append(_Draft(layer, module, found.kind, None, described, tensors, found.structure))
    return drafts


def on_one_grid(structure: Structure | None, sites: Iterable[Site | _Draft]) -> Structure | None:
    """Return an attention with the grid of the tables of positions, if they agree, and the only table.

    Another structure is returned as it is.
    """
    if not isinstance(structure, Attention):
        return structure
    tables = [
        (site.parameters[0].name, site.structure) for site in sites if isinstance(site.structure, Position)
    ]
    grids = {position.grid for _, position in tables}
    return replace(
        structure,
        grid=grids.pop() if len(grids) == 1 else None,
        table=tables[0] if len(tables) == 1 else None,
    )


def _class_names(walked: Sequence[Walked]) -> dict[str, tuple[str, ...]]:
    """Return the class names of every layer; those of the wrapped module rather than its wrapper."""
    known: dict[type, tuple[str, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for _, layer, module in walked:
        cls = type(module)
        if cls not in known:
            known[cls] = _classes(cls)
        found[layer] = known[cls]
    return found


def _heads(walked: Sequence[Walked]) -> dict[str, int]:
    """Return the number of heads of every layer that declares one."""
    declared = {layer: number((module,), HEADS) for _, layer, module in walked}
    return {layer: heads for layer, heads in declared.items() if heads is not None}


def _parameter(name: str, local: str, target: Target) -> Parameter:
    if any(is_lazy(stored) for stored in target.stored.values()):
        raise UserError(
            f"`{name}` has no shape yet, because its layer is lazy: run one forward, `model(example)`, "
            "before planning",
            code="MIM-G001",
        )
    computed = target.tensor if isinstance(target.tensor, Computed) else None
    return Parameter(
        name,
        local,
        tuple(target.like.shape),
        str(target.like.dtype).removeprefix("torch."),
        target.aliases,
        by=None if computed is None else computed.by,
        stored=() if computed is None else tuple(target.stored),
        frozen=tuple(stored for stored, p in target.stored.items() if not p.requires_grad),
        normalized=computed is not None and computed.normalized,
        obstacle=target.obstacle,
    )


def _classes(cls: type) -> tuple[str, ...]:
    """Return class names, nearest first, without the classes that FSDP2 creates dynamically."""
    names = [base.__name__ for base in cls.__mro__ if base is not object]
    if "FSDPModule" in names:
        names = [name for name in names[1:] if name != "FSDPModule"]
    return tuple(dict.fromkeys(names))


def _holders(walked: Sequence[Walked]) -> dict[int, int]:
    """Return the id of the module that owns each parameter, by the id of the parameter."""
    return {id(p): id(module) for _, _, module in reversed(walked) for p in own_parameters(module).values()}


def _in_order(drafts: list[_Draft], traced: Trace, holders: Mapping[int, int] | None = None) -> list[_Draft]:
    """Sort sites by first use; layers whose parameters were never used, by their first call.

    Parameters of a composite site are used when the layers that own them are called.
    """
    owner = {} if holders is None else holders

    def position(draft: _Draft) -> float:
        seen = [identity for p in draft.tensors for identity in (id(p), owner.get(id(p)))]
        uses = [traced.first[identity] for identity in seen if identity in traced.first]
        return min(uses, default=traced.first.get(id(draft.module), float("inf")))

    return sorted(drafts, key=position)


def _placed(drafts: list[_Draft], traced: Trace | None) -> list[Site]:
    """Return the sites with their depths and calls."""
    classes = {cls: _classes(cls) for cls in {type(draft.module) for draft in drafts}}
    return [
        Site(
            layer=draft.layer,
            kind=draft.kind,
            classes=classes[type(draft.module)],
            geometry=draft.geometry,
            parameters=draft.parameters,
            depth=depth,
            calls=None if traced is None else _calls(draft, traced),
            structure=draft.structure,
        )
        for draft, depth in zip(drafts, depths([draft.kind for draft in drafts]), strict=True)
    ]


def _calls(draft: _Draft, traced: Trace) -> int:
    """Count the calls of a layer, or else the uses of its parameters by other modules."""
    uses = (traced.calls.get(id(p), 0) for p in draft.tensors)
    return traced.calls.get(id(draft.module), 0) or max(uses, default=0)
