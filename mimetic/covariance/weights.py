"""What a network gives as it is: its weights, known by their shapes alone until it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mimetic.recipe.measured import Origin

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The parameters of one network.

    Attributes:
        origin: The network, as messages and plans show it, e.g. `stage large`.
        shapes: Shape of each parameter by canonical name.
        tensors: The parameters, on the CPU; None where the network is not trained yet.
    """

    origin: str
    shapes: Mapping[str, Shape]
    tensors: Mapping[str, Tensor] | None = None


def weights_key(origin: Origin) -> str:
    """Return the name under which a rule finds the weights of a network."""
    return f"weights of {origin.model_dump_json(by_alias=True)}"
