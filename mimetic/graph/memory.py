"""Memory of tensors: which parameters are one tensor, and which overlap without being one.

Two parameters can share memory without being one object (`head.weight.data = embedding.weight.data`), and a
parameter can contain one number many times (`expand`). Neither can be initialized by itself.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


class _Place(NamedTuple):
    """First and last byte of a tensor in an address space: that of a device, or a storage without memory."""

    space: Hashable
    start: int
    stop: int


def identity(tensor: Tensor) -> Hashable:
    """Return what two tensors have in common if and only if they are the same numbers in the same memory."""
    place = _place(tensor)
    return id(tensor) if place is None else (place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def overlaps_itself(tensor: Tensor) -> bool:
    """Return whether entries of a tensor share memory, as those of an expanded one do."""
    place = _place(tensor)
    return (
        place is not None
        and not tensor.is_contiguous()
        and len(_distinct(tensor, place.start)) < tensor.numel()
    )


def overlapping(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the names of tensors that share memory with another one, and that one's name."""
    placed = [(place, name) for name, tensor in tensors.items() if (place := _place(tensor)) is not None]
    placed.sort(key=lambda item: (str(item[0].space), item[0].start))
    found: dict[str, str] = {}
    reaching: list[tuple[_Place, str]] = []  # those before, in order, that end behind the start of the next
    for place, name in placed:
        reaching = [item for item in reaching if item[0].space == place.space and item[0].stop > place.start]
        for other, its_name in reaching:
            if _meet(tensors[name], place, tensors[its_name], other):
                found.setdefault(name, its_name)
                found.setdefault(its_name, name)
        reaching.append((place, name))
    return found


def _place(tensor: Tensor) -> _Place | None:
    """Return where a tensor is; None if it has no entries, or its memory is not known (quantized, lazy)."""
    local = getattr(tensor, "to_local", None)  # a shard of a distributed tensor
    tensor = tensor if local is None else local()
    if is_lazy(tensor) or tensor.numel() == 0 or tensor.layout != torch.strided:
        return None
    try:
        storage = tensor.untyped_storage()
        base = storage.data_ptr()
    except (RuntimeError, NotImplementedError):  # subclasses of tensors may have none
        return None
    size = tensor.element_size()
    reach = sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = base + int(tensor.storage_offset()) * size
    space: Hashable = tensor.device if base else (tensor.device, id(storage))
    return _Place(space, start, start + (reach + 1) * size)


def _meet(one: Tensor, first: _Place, other: Tensor, second: _Place) -> bool:
    """Return whether two tensors whose ranges overlap have an entry in common: views may interleave."""
    if one.is_contiguous() and other.is_contiguous():
        return True
    if one.element_size() != other.element_size():
        return True
    origin = min(first.start, second.start)
    return not _distinct(one, first.start - origin).isdisjoint(_distinct(other, second.start - origin))


def _distinct(tensor: Tensor, start: int) -> set[int]:
    """Return the positions of the entries in memory, in entries from a byte on."""
    positions = torch.tensor(start // tensor.element_size())
    for side, step in zip(tensor.shape, tensor.stride(), strict=True):
        positions = positions.unsqueeze(-1) + torch.arange(side) * step
    return set(positions.flatten().tolist())
