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

_TABLES = ("emb", "embed", "embedding", "embeddings", "enc", "encoding", "encodings", "table")

NAMES = frozenset(
    {
        *("_".join(words) for words in product(("pos", "position", "positional"), _TABLES)),
        "absolute_pos_embed",
        "absolute_position_embeddings",
        "embed_positions",
        "wpe",
    }
)
"""Names position tables go by."""

_PREFIXES = (0, 1, 2)
"""Class and distillation tokens that may stand before the patches, where their grid is a guess."""

_MOST_PREFIXES = 17
"""Tokens that may, registers among them, where the grid is declared: 16 registers and a class token."""


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
    declared = _declared(patches)
    if declared is not None and 0 <= tokens - math.prod(declared) <= _MOST_PREFIXES:
        return tokens - math.prod(declared), declared
    for prefix in _PREFIXES:
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 0 and side * side == tokens - prefix:
            return prefix, (side, side)
    return 0, None


def _declared(patches: nn.Module) -> tuple[int, int] | None:
    """Return the grid a patch embedding keeps, or that of the image and patch sizes it keeps."""
    grid = _pair(patches.__dict__.get("grid_size"))
    if grid is None:
        image, patch = _pair(patches.__dict__.get("image_size")), _pair(patches.__dict__.get("patch_size"))
        if image is not None and patch is not None:
            grid = (image[0] // patch[0], image[1] // patch[1])
    return grid if grid is not None and min(grid) > 0 else None


def _pair(value: object) -> tuple[int, int] | None:
    """Return two whole numbers, or one twice."""
    if type(value) is int:
        value = (value, value)
    if not isinstance(value, tuple | list) or [type(side) for side in value] != [int, int]:
        return None
    return (value[0], value[1]) if min(value) > 0 else None
