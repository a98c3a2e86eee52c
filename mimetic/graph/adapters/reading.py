"""Helpers of the adapters: linear layers of a module by path, and integer attributes by alternative names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from mimetic.graph.computed import tensors_of_layer
from mimetic.graph.config import CompositeKind
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import unwrapped
from mimetic.graph.own import own_children
from mimetic.graph.structure import Slot, Structure, stacked

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "nheads")
"""Attribute names of the number of query heads."""

HEAD_DIM = ("head_dim", "attention_head_size", "key_value_proj_dim", "dim_head", "head_size")
"""Attribute names of the width of a head."""


@dataclass(frozen=True, slots=True)
class Found:
    """A composite site that an adapter recognized.

    Attributes:
        kind: Its kind.
        structure: The roles of its parameters.
        tensors: The parameters and computed weights by the names that the slots use: those below the module.
        below: Name below the module, for a site that is one of several parameters.
    """

    kind: CompositeKind
    structure: Structure
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    below: str = ""


class Matrix(NamedTuple):
    """A linear layer as adapters see it: weight (O, I), or (I, O) if `transposed`."""

    path: str
    weight: Tensor
    bias: Tensor | None
    inputs: int
    outputs: int
    transposed: bool


def child(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path below another, without its wrappers; None if there is none."""
    for step in path.split("."):
        below = own_children(unwrapped(module)).get(step)
        if below is None:
            return None
        module = below
    return unwrapped(module)


def matrix(module: nn.Module, path: str) -> Matrix | None:
    """Return the linear layer at a path, if there is one whose weight it stores or computes itself."""
    layer = child(module, path)
    if layer is None:
        return None
    kind, geometry = kind_and_geometry(layer)
    own = tensors_of_layer(layer) if kind == "linear" and geometry is not None else {}
    weight, bias = own.get("weight"), own.get("bias")
    if geometry is None or weight is None:
        return None
    return Matrix(path, weight, bias, geometry.in_channels, geometry.out_channels, geometry.transposed)


def first_matrix(module: nn.Module, paths: Iterable[str]) -> Matrix | None:
    """Return the linear layer at the first path with one."""
    return next((found for path in paths if (found := matrix(module, path)) is not None), None)


def number(modules: Iterable[nn.Module], names: Iterable[str]) -> int | None:
    """Return the first positive integer attribute with one of several names."""
    for module in modules:
        for name in names:
            value = module.__dict__.get(name)
            if type(value) is int and value > 0:
                return value
    return None


def slots_of(found: Matrix, parts: Mapping[str, int]) -> list[Slot]:
    """Return the slots of a linear layer that contains several maps; see `graph.structure.stacked`."""
    return stacked(found.path, parts, transposed=found.transposed, bias=found.bias is not None)


def tensors_of(*matrices: Matrix) -> dict[str, Tensor]:
    """Return the tensors of linear layers by path."""
    found: dict[str, Tensor] = {}
    for layer in matrices:
        found[f"{layer.path}.weight"] = layer.weight
        if layer.bias is not None:
            found[f"{layer.path}.bias"] = layer.bias
    return found
