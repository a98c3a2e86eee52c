"""Sites of any network: every parameter at the place where an initializer acts on it.

A site is made for each layer that owns parameters itself. Order is that of one forward without values
(`mimetic.graph.trace`), or of registration where none can be run.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mimetic.errors import UserError
from mimetic.graph.example import guesses
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import joined, parameters_with_aliases, walk
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.graph.trace import Trace, trace

Places = list[tuple[Site, nn.Module]]


def find_sites(model: nn.Module, example: Tensor | tuple[Any, ...] | None = None) -> Graph:
    """Find the places of a network where initializers act, in the order of execution.

    Args:
        model: Any module on any device, the meta device included, in wrappers or not; unchanged.
        example: An input (N, …), or the tuple of positional arguments, for the traced forward; guessed
            from the model unless given. Only its shapes and dtypes are used.

    Returns:
        The graph: its sites own every parameter exactly once, tied ones at their first owner. Layers
        the forward does not use come last, in order of registration, with `calls` 0. If no forward can
        be traced, all are in order of registration, `calls` is None and `note` says why.

    Raises:
        UserError: If a parameter has no shape yet (lazy modules), or two have the same canonical name.
    """
    places = _places(model)
    given = None if example is None else (example if isinstance(example, tuple) else (example,),)
    inputs = guesses(model) if given is None else given
    traced, reason = trace(model, inputs)
    if traced is not None:
        places = _in_order(places, traced)
    layers = dict.fromkeys(canonical for _, canonical, _ in walk(model))
    return Graph(
        sites=_with_depth([site for site, _ in places]),
        traced=traced is not None,
        note=None if reason is None else f"the forward could not be traced: {reason}",
        layers=tuple(layers),
    )


def _places(model: nn.Module) -> Places:
    """Make the sites in order of registration, each with its module."""
    parameters = parameters_with_aliases(model)
    places: Places = []
    seen: set[int] = set()
    for _, layer, module in walk(model):
        if id(module) in seen:
            continue
        seen.add(id(module))
        owned = []
        for local, tensor in module._parameters.items():  # noqa: SLF001
            name = joined(layer, local)
            if tensor is None or name not in parameters or parameters[name][0] is not tensor:
                continue
            owned.append(_parameter(name, local, tensor, parameters[name][1]))
        if owned:
            kind, geometry = kind_and_geometry(module)
            places.append((Site(layer, kind, _classes(type(module)), geometry, tuple(owned)), module))
    return places


def _parameter(name: str, local: str, tensor: nn.Parameter, aliases: tuple[str, ...]) -> Parameter:
    if is_lazy(tensor):
        raise UserError(
            f"`{name}` has no shape yet, its layer is lazy: run one forward, `model(example)`, before planning"
        )
    return Parameter(name, local, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), aliases)


def _classes(cls: type) -> tuple[str, ...]:
    """Return class names, nearest first; those FSDP2 makes on the fly are left out."""
    names = [base.__name__ for base in cls.__mro__ if base is not object]
    if "FSDPModule" in names:
        names = [name for name in names[1:] if name != "FSDPModule"]
    return tuple(dict.fromkeys(names))


def _in_order(places: Places, traced: Trace) -> Places:
    """Sort sites by first use; a layer whose parameters nobody was seen to use, by its first call."""

    def position(place: tuple[Site, nn.Module]) -> float:
        _, module = place
        uses = [traced.first[id(p)] for p in module._parameters.values() if id(p) in traced.first]  # noqa: SLF001
        return min(uses, default=traced.first.get(id(module), float("inf")))

    def calls(module: nn.Module) -> int:
        uses = (traced.calls.get(id(p), 0) for p in module._parameters.values())  # noqa: SLF001
        return traced.calls.get(id(module), 0) or max(uses, default=0)

    return [(replace(site, calls=calls(module)), module) for site, module in sorted(places, key=position)]


def _with_depth(sites: list[Site]) -> tuple[Site, ...]:
    """Number the sites of each kind from 0 to 1, in order."""
    totals = Counter(site.kind for site in sites)
    passed: Counter[str] = Counter()
    placed = []
    for site in sites:
        last = totals[site.kind] - 1
        placed.append(replace(site, depth=passed[site.kind] / last if last else 0.0))
        passed[site.kind] += 1
    return tuple(placed)
