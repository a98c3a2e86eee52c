"""The sites of a recipe's network before anything is built: on the meta device, for its data's shape."""

from mimetic import data, models
from mimetic.graph import Graph, find_sites
from mimetic.recipe.data import AnyData
from mimetic.recipe.model import Model


def meta_sites(
    model: Model, examples: AnyData, *, classes: int | None = None, allow_code: bool = False
) -> Graph:
    """Return the sites of a network, built and traced without values.

    Args:
        model: The network.
        examples: Its data; only their shape is looked at.
        classes: Number of outputs; the data's unless given.
        allow_code: Let a `type: python` model run.
    """
    shape = data.describe(examples)
    outputs = shape.num_classes if classes is None else classes
    built = models.build_meta(model, in_channels=shape.channels, num_classes=outputs, allow_code=allow_code)
    return find_sites(built, shape.example())
