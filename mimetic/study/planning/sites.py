"""Find the sites of an arm's network on the meta device, for the shape of its data."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from mimetic.config.address import MAIN, ConfigPath
from mimetic.data.config import DataSection
from mimetic.data.dataset import example_input
from mimetic.data.shapes import IMAGENET
from mimetic.graph.site import Graph
from mimetic.graph.sites import find_sites
from mimetic.models.config import Model
from mimetic.study.planning.checks import shape_of
from mimetic.surgery.config import Rewrite
from mimetic.surgery.network import build_network
from mimetic.surgery.rewrite import Rewritten


class Sites(NamedTuple):
    """The sites of a network, what surgery replaced in it, and the network, on the meta device or not."""

    graph: Graph
    rewrites: tuple[Rewritten, ...]
    model: nn.Module


def rewritten_sites(
    model: Model,
    surgery: Sequence[Rewrite],
    examples: DataSection | None,
    *,
    allow_code: bool = False,
    meta: bool = True,
    at: ConfigPath = MAIN,
) -> Sites:
    """Return the sites of a network after its surgery, built and traced without allocating weights if `meta`.

    Only the shape of the examples is read.

    Raises:
        RecipeError: If the data are missing or damaged, or with every mistake of the rewrites at once.
    """
    shape = IMAGENET if examples is None else shape_of(examples, at)
    known = examples is not None
    built = build_network(model, surgery, shape=shape, allow_code=allow_code, meta=meta, traced=known, at=at)
    graph = find_sites(built.model, example_input(shape) if known else None)
    return Sites(graph, built.rewrites, built.model)
