"""From the maps of a composite site to the tensors that store them, and back."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mimetic.graph.site import Site


def assembled(
    site: Site, maps: Mapping[str, Tensor], names: Iterable[str], layer: nn.Module
) -> dict[str, Tensor]:
    """Return stored tensors by local name, contiguous float32 on the CPU.

    Args:
        site: A composite site.
        maps: Values (O, …) of its slots, by slot.
        names: Local names of the tensors wanted.
        layer: The live layer: slots without a map keep its values. Only read where there are such slots.
    """
    stored = {}
    for name in names:
        slots = [slot for slot in site.structure.slots if slot.parameter == name] if site.structure else []
        full = site.parameter(name).shape
        covered = sum(slot.outputs for slot in slots if slot.name in maps)
        axis = 1 if slots[0].transposed else 0
        whole = torch.empty(full) if covered == full[axis] else _present(layer, name)
        for slot in slots:
            if slot.name in maps:
                values = maps[slot.name].T if slot.transposed else maps[slot.name]
                whole.narrow(axis, slot.start, slot.outputs).copy_(values)
        stored[name] = whole
    return stored


def read_maps(site: Site, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps (O, …) that tensors of a composite site hold, by slot; the inverse of `assembled`."""
    maps = {}
    for slot in () if site.structure is None else site.structure.slots:
        if slot.parameter not in tensors:
            continue
        tensor = tensors[slot.parameter].narrow(1 if slot.transposed else 0, slot.start, slot.outputs)
        maps[slot.name] = tensor.T if slot.transposed else tensor
    return maps


def _present(layer: nn.Module, name: str) -> Tensor:
    """Return a copy of a live parameter, whole, in float32 on the CPU."""
    path, _, local = name.rpartition(".")
    live = layer.get_submodule(path)._parameters[local]  # noqa: SLF001
    values = live.detach() if live is not None else torch.empty(0)
    full = getattr(values, "full_tensor", None)
    values = values if full is None else full()
    return values.to("cpu", torch.float32, copy=True).contiguous()
