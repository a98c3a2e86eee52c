"""What a stored tensor contains beside one map: experts, gates, fused projections, rows that stay zero.

Modules are recognized by attributes and shapes that agree, as in `mimetic.graph.geometry`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from mimetic.graph.computed import tensor_like
from mimetic.graph.names import Walked, joined
from mimetic.graph.own import own_parameters
from mimetic.graph.site import Geometry, Parameter, Site
from mimetic.graph.structure import Attention

_EXPERTS = ("num_experts", "num_local_experts", "n_experts", "n_total_experts", "n_shared_experts")
_HIDDEN = ("hidden_size", "hidden_dim", "input_size")
_OUTPUTS_HIDDEN = ("down", "w2", "output")
"""Parts of the names of an expert's second matrix, whose outputs have the width of the residual stream."""

_STACKED_DIMS = 3
_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}


def experts_in(module: nn.Module) -> dict[str, tuple[int, Geometry]]:
    """Return the number of experts, and one expert's geometry, by the local name of each stacked weight.

    A weight is (E, out, in), or (E, in, out) if the module declares `is_transposed` or its hidden size shows
    it.
    """
    found = {}
    counts = {vars(module).get(name) for name in _EXPERTS} - {None}
    for local, weight in own_parameters(module).items():
        if weight is not None and weight.ndim == _STACKED_DIMS and weight.shape[0] in counts:
            first, second = weight.shape[1:]
            if _is_input_first(module, local, weight):
                found[local] = (weight.shape[0], Geometry(first, second, transposed=True))
            else:
                found[local] = (weight.shape[0], Geometry(second, first))
    return found


def _is_input_first(module: nn.Module, local: str, weight: Tensor) -> bool:
    declared = vars(module).get("is_transposed")
    if isinstance(declared, bool):
        return declared
    hidden = next((size for name in _HIDDEN if isinstance(size := vars(module).get(name), int)), None)
    first, second = weight.shape[1:]
    outputs_hidden = any(part in local for part in _OUTPUTS_HIDDEN)
    return first != second and hidden == (second if outputs_hidden else first)


def with_parts(
    sites: Sequence[Site], composites: Sequence[Site], walked: Sequence[Walked]
) -> tuple[list[Site], list[Site]]:
    """Return sites and composite sites whose parameters state their zero rows and maps along their outputs.

    What an attention fuses is stated by the sites of its layers.
    """
    zero, longest, gates = _zero_rows(walked), _longest_rows(walked), _gate_maps(walked)

    def described(parameter: Parameter, maps: Mapping[str, tuple[int, ...]]) -> Parameter:
        names = (parameter.name, *parameter.aliases)
        if not any(name in found for found in (zero, longest, maps) for name in names):
            return parameter
        return replace(
            parameter,
            zero_rows=tuple(sorted({zero[name] for name in names if name in zero})),
            max_norm=min((longest[name] for name in names if name in longest), default=None),
            maps=next((maps[name] for name in names if name in maps), ()),
        )

    def stated(site: Site, maps: Mapping[str, tuple[int, ...]]) -> Site:
        parameters = tuple(described(parameter, maps) for parameter in site.parameters)
        return site if parameters == site.parameters else replace(site, parameters=parameters)

    fused = {**_fused_maps(composites), **gates}
    return [stated(site, fused) for site in sites], [stated(site, gates) for site in composites]


def _zero_rows(walked: Iterable[Walked]) -> dict[str, int]:
    """Return the row that a layer keeps at zero, by the name of its weight: that of `padding_idx`."""
    found: dict[str, int] = {}
    for _, layer, module in walked:
        row = vars(module).get("padding_idx")
        weight = tensor_like(module, "weight") if isinstance(row, int) else None
        if isinstance(row, int) and weight is not None and weight.ndim > 1:
            rows = weight.shape[0]
            if -rows <= row < rows:
                found[joined(layer, "weight")] = row % rows
    return found


def _longest_rows(walked: Iterable[Walked]) -> dict[str, float]:
    """Return the norm to which a layer shortens longer rows in a forward, by the name of its weight."""
    norms = {joined(layer, "weight"): vars(module).get("max_norm") for _, layer, module in walked}
    return {name: float(norm) for name, norm in norms.items() if isinstance(norm, int | float)}


def _gate_maps(walked: Iterable[Walked]) -> dict[str, tuple[int, ...]]:
    """Return the outputs of each gate of an LSTM or GRU by the name of the weight."""
    found: dict[str, tuple[int, ...]] = {}
    for _, layer, module in walked:
        gates = next((_GATES[base.__name__] for base in type(module).__mro__ if base.__name__ in _GATES), 1)
        if gates > 1:
            for local, weight in own_parameters(module).items():
                if weight is not None and local.startswith(("weight_ih", "weight_hh")):
                    found[joined(layer, local)] = (weight.shape[0] // gates,) * gates
    return found


def _fused_maps(composites: Iterable[Site]) -> dict[str, tuple[int, ...]]:
    """Return the outputs of each map by the name of the tensor, for attentions that fuse several."""
    found: dict[str, tuple[int, ...]] = {}
    for site in composites:
        if isinstance(site.structure, Attention):
            slots_in: Mapping[str, tuple[str, ...]] = site.slots_by_parameter()
            for parameter in site.parameters:
                slots = [slot for name in slots_in.get(parameter.local, ()) if (slot := site.slot(name))]
                if len(slots) > 1:
                    found[parameter.name] = tuple(slot.outputs for slot in slots)
    return found
