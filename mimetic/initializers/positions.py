"""Tables of positions: from the arguments of a rule to sines and cosines of a grid."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.graph.structure import Position
from mimetic.initializers.config import Sincos2d
from mimetic.initializers.dispatch import named
from mimetic.initializers.draw import ResolvedInit, Streams
from mimetic.initializers.products import close
from mimetic.models.sincos import sincos2d


@named.register
def sincos(spec: Sincos2d, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw, which draws nothing, of a position table of sines and cosines.

    Raises:
        UserError: If the positions have no grid, or their width is not a multiple of four.
    """
    structure = site.structure
    if not isinstance(structure, Position):
        raise UserError(f"{site.layer}: sincos2d fills tables of positions, and this is a {site.kind} site")
    grid = _grid_of(site, structure, spec.grid)
    check_sincos_width(site, structure.dim, spec.layout)
    prefix = structure.tokens - grid[0] * grid[1]
    local = structure.slots[0].parameter

    def table() -> Tensor:
        table_ND = sincos2d(grid, structure.dim, layout=spec.layout, temperature=spec.temperature)
        whole_TD = functional.pad(spec.scale * table_ND, (0, 0, prefix, 0))
        return whole_TD.view(site.parameter(local).shape)

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:  # noqa: ARG001
        return {local: table().to(torch.float32)} if local in names else {}

    def check(streams: Streams, tensors: Mapping[str, Tensor], rounding: float) -> list[str]:  # noqa: ARG001
        kept = local not in tensors or close(tensors[local], table(), rounding=rounding)
        return [] if kept else ["its entries are the sines and cosines of the grid"]

    arguments = {**spec.model_dump(exclude={"type"}), "grid": list(grid)}
    others = f" after {prefix} of zeros" if prefix else ""
    taken = (f"the rule takes them as a grid of {grid[0]}×{grid[1]}{others}",)
    notes = (*(() if grid == structure.grid else taken), "checked after writing: every entry")
    return ResolvedInit(spec.type_name(), arguments, sample, notes=notes, check=check)


def _grid_of(site: Site, structure: Position, said: tuple[int, int] | None) -> tuple[int, int]:
    """Return the grid of a table: what the rule says, else what the model tells.

    Raises:
        UserError: If neither does, or the rule's does not fit: larger than the table, or leaving most of it.
    """
    grid = structure.grid if said is None else said
    tokens = structure.tokens
    if grid is not None and tokens <= 2 * grid[0] * grid[1] <= 2 * tokens:
        return grid
    square = math.isqrt(tokens)
    rows, columns = (square, square) if structure.grid is None else structure.grid
    if grid is None:
        why = "have no grid; say it, e.g."
    else:
        which = "fewer than" if grid[0] * grid[1] > tokens else "more than twice"
        why = f"are {which} {grid[0]}×{grid[1]}; a grid that fits is"
    raise UserError(f"{site.layer}: its {tokens} positions {why} `grid: [{rows}, {columns}]`")


def check_sincos_width(site: Site, dim: int, layout: str) -> None:
    """Refuse a width that sines and cosines of two coordinates cannot fill.

    Raises:
        UserError: With the least width of the layout.
    """
    least = 8 if layout == "simple" else 4
    if dim % 4 or dim < least:
        message = f"{site.layer}: sines and cosines need a width that is a multiple of 4, at least {least}, "
        raise UserError(message + f"not {dim}")
