"""Memory of tensors: which parameters are one tensor, and which overlap without being one.

Two parameters can share memory without being one object (`head.weight.data = embedding.weight.data`), and a
parameter can contain one number many times (`expand`). Neither can be initialized by itself.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


class _Place(NamedTuple):
    """First and last byte of a tensor in an address space: that of a device, or a storage without memory."""

    space: Hashable
    start: int
    stop: int


class Memory:
    """Where parameters are, found once for each."""

    def __init__(self) -> None:
        """Know no parameter yet."""
        # The lists refer to the parameters, so an id stays that of its parameter.
        self._known: dict[int, tuple[_Place | None, list[nn.Parameter]]] = {}
        self._same: dict[Hashable, list[nn.Parameter]] = {}

    def same(self, tensor: nn.Parameter) -> list[nn.Parameter]:
        """Return the known parameters that are the same entries of the same memory."""
        return self._find(tensor)[1]

    def identity(self, tensor: nn.Parameter) -> int:
        """Return a number that parameters share exactly if they are the same entries of the same memory."""
        return id(self.same(tensor))

    def overlaps_itself(self, tensor: nn.Parameter) -> bool:
        """Return whether entries of a parameter share memory, as those of an expanded one do."""
        place, _ = self._find(tensor)
        if place is None or tensor.is_contiguous():
            return False
        return len(_distinct(tensor, place.start)) < tensor.numel()

    def overlapping(self, tensors: Mapping[str, nn.Parameter]) -> dict[str, str]:
        """Return the names of parameters that share memory with another one, and that one's name."""
        spaces: dict[Hashable, list[tuple[_Place, str]]] = {}
        for name, tensor in tensors.items():
            place, _ = self._find(tensor)
            if place is not None:
                spaces.setdefault(place.space, []).append((place, name))
        found: dict[str, str] = {}
        for placed in spaces.values():
            reaching: list[tuple[_Place, str]] = []  # those before, in order, that end behind the start
            for place, name in sorted(placed, key=lambda item: item[0].start):
                reaching = [item for item in reaching if item[0].stop > place.start]
                for other, its_name in reaching:
                    if _meet(tensors[name], place, tensors[its_name], other):
                        found.setdefault(name, its_name)
                        found.setdefault(its_name, name)
                reaching.append((place, name))
        return found

    def _find(self, tensor: nn.Parameter) -> tuple[_Place | None, list[nn.Parameter]]:
        found = self._known.get(id(tensor))
        if found is None:
            place = _place(tensor)
            same: Hashable = id(tensor)
            if place is not None:
                same = (place, tensor.shape, tensor.stride(), tensor.dtype)
            found = self._known[id(tensor)] = (place, self._same.setdefault(same, []))
            found[1].append(tensor)
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
    if tensor.is_contiguous():
        reach = tensor.numel() - 1
    else:
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
