"""Build the network of an arm: its model, then its surgery."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mimetic.config.address import MAIN, ConfigPath
from mimetic.data.dataset import example_input
from mimetic.data.shapes import DataShape
from mimetic.models.build import build
from mimetic.models.config import Model
from mimetic.surgery.config import Rewrite
from mimetic.surgery.rewrite import Rewritten, rewrite_network


@dataclass(frozen=True, slots=True)
class Network:
    """A network and its rewrites.

    Attributes:
        model: The network with its own initialization; without values on the meta device.
        rewrites: The layers that surgery replaced.
    """

    model: nn.Module
    rewrites: tuple[Rewritten, ...]


def build_network(
    spec: Model,
    surgery: Sequence[Rewrite] = (),
    *,
    shape: DataShape,
    seed: int = 0,
    allow_code: bool = False,
    meta: bool = False,
    traced: bool = True,
    at: ConfigPath = MAIN,
) -> Network:
    """Build a model on the CPU or the meta device, and rewrite it.

    The values depend on `seed` only; see `mimetic.models.build` and `mimetic.surgery.rewrite`.

    Args:
        spec: The model's section.
        surgery: The arm's rewrites.
        shape: Shape of the images or sequences.
        seed: Seed of the run.
        allow_code: Whether a `type: python` model may run.
        meta: Whether to build on the meta device, without values.
        traced: Whether to trace the order of layers with an example of that shape, instead of a guessed one.
        at: Path of the arm in its recipe, for messages.

    Raises:
        UserError: If the model cannot be built.
        RecipeError: With all errors of the rewrites.
    """
    model = build(
        spec,
        in_channels=shape.channels,
        num_classes=shape.num_classes,
        seed=seed,
        allow_code=allow_code,
        meta=meta,
    )
    example = example_input(shape) if traced else None
    return Network(model, rewrite_network(model, surgery, seed=seed, example=example, at=at))
