"""Position tables of sines and cosines of a grid."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.covariance.context import Context
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.graph.structure import Position
from mimetic.initializers.config import Sincos2d
from mimetic.initializers.resolved import ResolvedInit, Streams
from mimetic.models.sincos import Layout, sincos2d, width_problem


def sincos2d_table(spec: Sincos2d, site: Site, context: Context) -> ResolvedInit:
    """Resolve a position table; nothing is random.

    Raises:
        UserError: If the positions have no grid, or their width is not a multiple of four.
    """
    structure = site.structure
    if not isinstance(structure, Position):
        raise UserError(
            f"{site.layer}: sincos2d fills position tables, and this is a {site.kind} site", code="MIM-I041"
        )
    grid = grid_of(site, structure, spec.grid)
    check_sincos_width(site, structure.dim, spec.layout)
    prefix = structure.tokens - grid[0] * grid[1]
    local = structure.slots[0].parameter

    def sample(_streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
        if local not in context.parameters:
            return {}
        table_ND = sincos2d(grid, structure.dim, layout=spec.layout, temperature=spec.temperature)
        table_TD = functional.pad(spec.scale * table_ND, (0, 0, prefix, 0))
        return {local: table_TD.view(site.parameter(local).shape).to(torch.float32)}

    arguments = {**spec.model_dump(exclude={"type"}), "grid": list(grid)}
    before = f" after {prefix} of zeros" if prefix else ""
    note = f"the rule takes them as a grid of {grid[0]}×{grid[1]}{before}"
    return ResolvedInit(spec.type_name(), arguments, sample, notes=() if grid == structure.grid else (note,))


def grid_of(site: Site, structure: Position, given: tuple[int, int] | None) -> tuple[int, int]:
    """Return the grid of a table: the rule's, else the model's.

    Raises:
        UserError: If neither has one, or the rule's does not fit: it is larger than the table, or covers less
            than half of it.
    """
    grid = structure.grid if given is None else given
    tokens = structure.tokens
    if grid is not None and tokens <= 2 * grid[0] * grid[1] <= 2 * tokens:
        return grid
    square = math.isqrt(tokens)
    rows, columns = (square, square) if structure.grid is None else structure.grid
    if grid is None:
        why = "have no grid; give it, e.g."
    else:
        which = "fewer than" if grid[0] * grid[1] > tokens else "more than twice"
        why = f"are {which} {grid[0]}×{grid[1]}; a grid that fits is"
    raise UserError(
        f"{site.layer}: its {tokens} positions {why} `grid: [{rows}, {columns}]`", code="MIM-I042"
    )


def check_sincos_width(site: Site, dim: int, layout: Layout) -> None:
    """Refuse a width that sines and cosines of two coordinates cannot fill.

    Raises:
        UserError: With the smallest width of the layout.
    """
    problem = width_problem(dim, layout)
    if problem is not None:
        raise UserError(f"{site.layer}: sines and cosines {problem}", code="MIM-I043")
