"""Tables of learned position embeddings, told by their names and shapes.

A table is a parameter (T, D) or (1, T, D) beside a class token, or the weight of a layer of its own, and
an embedding layer in models of language. If tokens are patches of an image, their rows and columns are
read: declared by the patch embedding, or else a square. GPT-2's 1024 positions are 32², so a square is
believed only beside a patch embedding.
"""

import math
from collections.abc import Iterator
from itertools import product

from torch import nn

from mimetic.graph.adapters.reading import Found
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.structure import Position, Slot

NAMES = frozenset(
    {
        "pos_embed",
        "pos_emb",
        "pos_embedding",
        "pos_embeddings",
        "position_embed",
        "position_embedding",
        "position_embeddings",
        "positional_embedding",
        "positional_embeddings",
        "absolute_pos_embed",
        "wpe",
    }
)
"""Names position tables go by."""

_PREFIXES = (0, 1, 2)
"""Class, distillation and register tokens that may stand before the patches."""


def position_parameters(module: nn.Module, parent: nn.Module | None) -> Iterator[Found]:
    """Find tables that are parameters of a module itself; patches may also be beside it."""
    for local, table in module._parameters.items():  # noqa: SLF001
        if local in NAMES and table is not None:
            found = _table(table, local, _patches(module, parent))
            if found is not None:
                yield Found("position", found, {local: table}, below=local)


def position_layer(module: nn.Module, key: str, parent: nn.Module | None) -> Found | None:
    """Recognise a layer that is named as a table and owns one parameter, `weight`."""
    own = module._parameters  # noqa: SLF001
    table = own.get("weight") if key in NAMES and len(own) == 1 else None
    if table is None:
        return None
    found = _table(table, "weight", _patches(parent))
    return None if found is None else Found("position", found, {"weight": table})


def _table(table: nn.Parameter, local: str, patches: nn.Module | None) -> Position | None:
    shape = tuple(table.shape)
    if len(shape) == 3 and shape[0] == 1:  # noqa: PLR2004
        tokens, dim = shape[1:]
    elif len(shape) == 2:  # noqa: PLR2004
        tokens, dim = shape
    else:
        return None
    prefix, grid = (0, None) if patches is None else _grid(tokens, patches)
    return Position((Slot("table", local, 0, shape[0]),), tokens, dim, prefix, grid)


def _patches(*around: nn.Module | None) -> nn.Module | None:
    """Return the patch embedding beside a table: a child that is, or holds, a strided convolution."""
    beside = [below for module in around if module is not None for below in module.children()]
    for found in beside:
        for layer in (found, *found.children()):
            _, geometry = kind_and_geometry(layer)
            if geometry is not None and len(geometry.kernel_size) == 2 and max(geometry.stride) > 1:  # noqa: PLR2004
                return found
    return None


def _grid(tokens: int, patches: nn.Module) -> tuple[int, tuple[int, int] | None]:
    """Return the tokens before the grid, and its sides: as declared, or else a square."""
    declared = patches.__dict__.get("grid_size")
    sides = [declared] if isinstance(declared, tuple | list) and len(declared) == 2 else []  # noqa: PLR2004
    sides += [(math.isqrt(tokens - prefix),) * 2 for prefix in _PREFIXES if tokens > prefix]
    for prefix, (rows, columns) in product(_PREFIXES, sides):
        if type(rows) is int and type(columns) is int and rows * columns == tokens - prefix and rows > 0:
            return prefix, (rows, columns)
    return 0, None
