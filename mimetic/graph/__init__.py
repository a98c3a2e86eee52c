"""The graph: sites of any `nn.Module`, with names, geometry and order of execution."""

from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import (
    canonical_buffers,
    canonical_modules,
    canonical_name,
    canonical_parameters,
    parameters_with_aliases,
)
from mimetic.graph.site import Geometry, Graph, Parameter, Site
from mimetic.graph.sites import find_sites
from mimetic.graph.structure import Attention, Mlp, Position, Slot, StateSpace, Structure

__all__ = [
    "Attention",
    "Geometry",
    "Graph",
    "Mlp",
    "Parameter",
    "Position",
    "Site",
    "Slot",
    "StateSpace",
    "Structure",
    "canonical_buffers",
    "canonical_modules",
    "canonical_name",
    "canonical_parameters",
    "find_sites",
    "kind_and_geometry",
    "parameters_with_aliases",
]
