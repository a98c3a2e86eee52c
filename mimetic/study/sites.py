"""The sites of a recipe's network before anything is built: on the meta device, for its data's shape."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from mimetic import data
from mimetic.graph import Graph, find_sites
from mimetic.plan import Rewritten
from mimetic.plan.resolve import Where
from mimetic.recipe.data import AnyData
from mimetic.recipe.model import Model
from mimetic.recipe.surgery import Rewrite
from mimetic.surgery import build_network


class Sites(NamedTuple):
    """The sites of a network, and what surgery replaced in it before."""

    graph: Graph
    rewrites: tuple[Rewritten, ...]


def meta_sites(
    model: Model, examples: AnyData, *, classes: int | None = None, allow_code: bool = False
) -> Graph:
    """Return the sites of a network as its section describes it, built and traced without values.

    Args:
        model: The network.
        examples: Its data; only their shape is looked at.
        classes: Number of outputs; the data's unless given.
        allow_code: Let a `type: python` model run.
    """
    return rewritten_sites(model, (), examples, classes=classes, allow_code=allow_code).graph


def rewritten_sites(
    model: Model,
    surgery: Sequence[Rewrite],
    examples: AnyData,
    *,
    classes: int | None = None,
    allow_code: bool = False,
    name: str = "main",
    where: Where | None = None,
) -> Sites:
    """Return the sites of a network after its surgery, built and traced without values.

    Args:
        model: The network.
        surgery: The arm's rewrites.
        examples: Its data; only their shape is looked at.
        classes: Number of outputs; the data's unless given.
        allow_code: Let a `type: python` model run.
        name: Name of the arm, for messages.
        where: Looks up the place of a rewrite in its file.

    Raises:
        RecipeError: With every mistake of the rewrites at once.
    """
    shape = data.describe(examples)
    shape = shape if classes is None else replace(shape, num_classes=classes)
    built = build_network(
        model, surgery, shape=shape, allow_code=allow_code, meta=True, name=name, where=where
    )
    return Sites(find_sites(built.model, shape.example()), built.rewrites)
