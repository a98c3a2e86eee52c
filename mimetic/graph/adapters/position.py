"""Tables of learned position embeddings, recognized by names and shapes.

A table is a parameter (T, D) or (1, T, D), or the weight of a separate layer, which is an embedding layer in
language models. If the tokens are image patches, the grid is the one that the patch embedding declares, or
else a square. A square is assumed only beside a patch embedding: GPT-2's 1024 positions are 32².
"""

import math
from collections.abc import Iterator
from itertools import product

from torch import Tensor, nn

from mimetic.graph.adapters.reading import Found
from mimetic.graph.computed import tensors_of_layer
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
"""Names of position tables."""

_PREFIXES = (0, 1, 2)
"""Numbers of class and distillation tokens before the patches, if the grid is guessed."""

_MOST_PREFIXES = 17
"""Most tokens before the patches if the grid is declared: 16 registers and a class token."""


def position_parameters(module: nn.Module, parent: nn.Module | None) -> Iterator[Found]:
    """Find tables among a module's own parameters; the patch embedding may also be its sibling."""
    for local, table in tensors_of_layer(module).items():
        if local in NAMES:
            found = _table(table, local, _patches(module, parent))
            if found is not None:
                yield Found("position", found, {local: table}, below=local)


def position_layer(module: nn.Module, key: str, parent: nn.Module | None) -> Found | None:
    """Recognize a layer with the name of a table and a single parameter, `weight`."""
    own = tensors_of_layer(module)
    table = own.get("weight") if key in NAMES and len(own) == 1 else None
    if table is None:
        return None
    found = _table(table, "weight", _patches(parent))
    return None if found is None else Found("position", found, {"weight": table})


def _table(table: Tensor, local: str, patches: nn.Module | None) -> Position | None:
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
    """Return the patch embedding beside a table: a child that is, or contains, a strided convolution."""
    beside = [below for module in around if module is not None for below in module.children()]
    for found in beside:
        for layer in (found, *found.children()):
            _, geometry = kind_and_geometry(layer)
            if geometry is not None and len(geometry.kernel_size) == 2 and max(geometry.stride) > 1:  # noqa: PLR2004
                return found
    return None


def _grid(tokens: int, patches: nn.Module) -> tuple[int, tuple[int, int] | None]:
    """Return the number of tokens before the grid, and its sides: as declared, or else a square."""
    declared = _declared(patches)
    if declared is not None and 0 <= tokens - math.prod(declared) <= _MOST_PREFIXES:
        return tokens - math.prod(declared), declared
    for prefix in _PREFIXES:
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 0 and side * side == tokens - prefix:
            return prefix, (side, side)
    return 0, None


def _declared(patches: nn.Module) -> tuple[int, int] | None:
    """Return the grid that a patch embedding declares, directly or by image and patch sizes."""
    grid = _pair(patches.__dict__.get("grid_size"))
    if grid is None:
        image, patch = _pair(patches.__dict__.get("image_size")), _pair(patches.__dict__.get("patch_size"))
        if image is not None and patch is not None:
            grid = (image[0] // patch[0], image[1] // patch[1])
    return grid if grid is not None and min(grid) > 0 else None


def _pair(value: object) -> tuple[int, int] | None:
    """Return a pair of integers; a single integer counts twice."""
    if type(value) is int:
        value = (value, value)
    if not isinstance(value, tuple | list) or [type(side) for side in value] != [int, int]:
        return None
    return (value[0], value[1]) if min(value) > 0 else None
