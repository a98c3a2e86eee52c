"""Composite sites of any network: attentions, position tables, state spaces and MLP pairs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from mimetic.graph.adapters import ADAPTERS
from mimetic.graph.adapters.position import NAMES, position_layer, position_parameters
from mimetic.graph.adapters.reading import Found
from mimetic.graph.computed import tensors_of_layer
from mimetic.graph.names import Walked, joined, unwraps
from mimetic.graph.own import own_children, own_parameters


class Composite(NamedTuple):
    """A composite site before its order among the others is known; `names` are canonical, by local name."""

    layer: str
    module: nn.Module
    found: Found
    names: Mapping[str, str]


def composites(walked: Sequence[Walked], known: Mapping[str, str]) -> Iterator[Composite]:
    """Find the composite sites, in order of registration; `known` has the canonical name of every name.

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
            names = {local: known.get(joined(layer, local), "") for local in found.tensors}
            # Where one tensor has two names in a site, such as tied queries and keys, no values fit both.
            if all(names.values()) and len(set(names.values())) == len(names):
                yield Composite(joined(layer, found.below) if found.below else layer, module, found, names)


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
    if tensors_of_layer(module):
        table = position_layer(module, key, parent)
        if table is not None:
            yield table
        yield from position_parameters(module, parent)
