"""Initializers of composite sites: from the maps of a site to the tensors that store them, and back."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from mimetic.covariance.context import Context
from mimetic.graph.computed import tensor_in_use
from mimetic.graph.site import Site
from mimetic.initializers.config import Init
from mimetic.initializers.resolved import Moments, ResolvedInit, Streams

MapStreams = Callable[[str], Generator]
"""`stream(slot)`: the generator of one map. Keys name what a map is, not how it is stored."""


def composite_init(
    spec: Init,
    site: Site,
    context: Context,
    sample_maps: Callable[[MapStreams], Mapping[str, Tensor]],
    *,
    moments: Mapping[str, Moments],
    notes: Sequence[str] = (),
    **resolved: object,
) -> ResolvedInit:
    """Return the initializer of a composite site from a function that draws its maps.

    Args:
        spec: The section; it names the slots it fills. Slots beyond them keep their values.
        site: The site.
        context: The claimed parameters; only these are drawn.
        sample_maps: `sample_maps(stream)` returns maps (O, …) by slot.
        moments: Expected moments of stored tensors by local name, where they are known.
        notes: Remarks for the reader of the plan.
        **resolved: Arguments that the section leaves open, as resolved for the site.
    """
    names = context.parameters

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        maps = sample_maps(lambda slot: streams("", slot))
        filled = maps if spec.filled_slots is None else spec.filled_slots
        return assemble(site, {slot: maps[slot] for slot in maps if slot in filled}, names, layer)

    return ResolvedInit(
        name=spec.type_name(),
        arguments={**spec.model_dump(exclude={"type", "from_"}), **resolved},
        sample=sample,
        moments={local: moments[local] for local in names if local in moments},
        notes=tuple(notes),
    )


def assemble(
    site: Site, maps: Mapping[str, Tensor], names: Iterable[str], layer: nn.Module
) -> dict[str, Tensor]:
    """Return stored tensors by local name, contiguous float32 on the CPU.

    Args:
        site: A composite site.
        maps: Values (O, …) of its slots, by slot.
        names: Local names of the tensors to return.
        layer: The live layer: slots without a map keep its values. Only read where there are such slots.
    """
    stored = {}
    for name in names:
        slots = [slot for slot in site.structure.slots if slot.parameter == name] if site.structure else []
        shape = site.parameter(name).shape
        covered = sum(slot.outputs for slot in slots if slot.name in maps)
        axis = 1 if slots[0].transposed else 0
        tensor = torch.empty(shape) if covered == shape[axis] else _live_values(layer, name)
        for slot in slots:
            if slot.name in maps:
                values = maps[slot.name].T if slot.transposed else maps[slot.name]
                tensor.narrow(axis, slot.start, slot.outputs).copy_(values)
        stored[name] = tensor
    return stored


def read_maps(site: Site, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps (O, …) in tensors of a composite site, by slot; the inverse of `assemble`."""
    maps = {}
    for slot in () if site.structure is None else site.structure.slots:
        if slot.parameter in tensors:
            axis = 1 if slot.transposed else 0
            tensor = tensors[slot.parameter].narrow(axis, slot.start, slot.outputs)
            maps[slot.name] = tensor.T if slot.transposed else tensor
    return maps


def _live_values(layer: nn.Module, name: str) -> Tensor:
    """Return a copy of a live parameter, gathered from its shards, in float32 or wider on the CPU."""
    path, _, local = name.rpartition(".")
    values = tensor_in_use(layer.get_submodule(path), local)
    return values.to(torch.promote_types(values.dtype, torch.float32)).contiguous()
