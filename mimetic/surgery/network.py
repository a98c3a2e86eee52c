"""An arm's network: its model, then its surgery. The one place where both meet."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mimetic.config.address import MAIN, ConfigPath
from mimetic.data.dataset import example_input
from mimetic.data.shapes import DataShape
from mimetic.models.build import build, build_meta
from mimetic.models.config import Model
from mimetic.surgery.config import Rewrite
from mimetic.surgery.operate import operate
from mimetic.surgery.replacement import Rewritten


@dataclass(frozen=True, slots=True)
class Network:
    """A network and what was rewritten in it.

    Attributes:
        model: With its own initialization; without values where it lies on the meta device.
        rewrites: What surgery replaced.
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
    """Build a model on the CPU, or look at it on the meta device, and rewrite it.

    The values depend on `seed` alone; see `mimetic.models.build` and `mimetic.surgery.operate`.

    Args:
        spec: The model's section.
        surgery: The arm's rewrites.
        shape: Shape of the images or sequences it is for.
        seed: Seed of the run.
        allow_code: Whether a `type: python` model may run.
        meta: Whether the network is only looked at.
        traced: Whether rewrites find the order of layers with an example of that shape; else guessed.
        at: Where the arm stands in its recipe, for messages.

    Raises:
        UserError: If the model cannot be built.
        RecipeError: With every mistake of the rewrites at once.
    """
    make = build_meta if meta else build
    model = make(
        spec, in_channels=shape.channels, num_classes=shape.num_classes, seed=seed, allow_code=allow_code
    )
    example = example_input(shape) if traced else None
    return Network(model, operate(model, surgery, seed=seed, example=example, at=at))
