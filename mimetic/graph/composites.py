"""Composite sites of any network: attentions, position tables, state spaces and MLP pairs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from mimetic.graph.adapters import ADAPTERS, Found, position_layer, position_parameters
from mimetic.graph.adapters.position import NAMES
from mimetic.graph.memory import identity
from mimetic.graph.names import Walked, joined, unwraps
from mimetic.graph.own import own_children, own_parameters


class Composite(NamedTuple):
    """A composite site before its order among the others is known."""

    layer: str
    module: nn.Module
    found: Found


Owned = Mapping[int, str]
"""Canonical name of a parameter by its id."""


def composites(walked: Sequence[Walked], owned: Owned) -> Iterator[Composite]:
    """Find the composite sites, in order of registration.

    Wrappers are skipped, and modules already seen under another name. So are modules in which a tensor is
    tied into two different slots, because no values could fit both.
    """
    seen: set[int] = set()
    modules = {layer: module for _, layer, module in walked}
    for _, layer, module in walked:
        above, _, key = layer.rpartition(".")
        if not _may_be(module, key) or id(module) in seen:
            continue
        seen.add(id(module))
        for found in _found(module, key, modules.get(above) if layer else None):
            if all(id(tensor) in owned for tensor in found.tensors.values()) and not _entangled(found):
                yield Composite(joined(layer, found.below) if found.below else layer, module, found)


def _may_be(module: nn.Module, key: str) -> bool:
    """Return whether a module can be a composite site: no leaf whose name gives no hint, no wrapper."""
    below = own_children(module)
    if not below:
        return key in NAMES or not NAMES.isdisjoint(own_parameters(module))
    return not any(unwraps(module, name) for name in below)


def _found(module: nn.Module, key: str, parent: nn.Module | None) -> Iterator[Found]:
    if own_children(module):
        recognized = next((found for read in ADAPTERS if (found := read(module)) is not None), None)
        if recognized is not None:
            yield recognized
    if own_parameters(module):
        table = position_layer(module, key, parent)
        if table is not None:
            yield table
        yield from position_parameters(module, parent)


def _entangled(found: Found) -> bool:
    """Return whether one tensor has two names in a site, such as tied queries and keys."""
    return len({identity(tensor) for tensor in found.tensors.values()}) < len(found.tensors)
