"""A weight that a file stores, as its layer uses it, and integers with a scale."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mimetic.errors import UserError
from mimetic.graph.config import SiteKind
from mimetic.graph.site import Geometry, shape_text

WEIGHT = ".weight"


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """A weight as its layer uses it.

    Attributes:
        name: Its name, e.g. `blocks.0.conv.weight`.
        values: Its values, floating point.
        kind: Kind of its layer; None where the file contains no graph.
        geometry: The weight as a map over patches; None where the file contains no graph.
        outputs: Length of the layer's bias; None where it has none.
        notes: How it was computed from what the file stores.
    """

    name: str
    values: Tensor
    kind: SiteKind | None = None
    geometry: Geometry | None = None
    outputs: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """Return the name of its layer."""
        return self.name.removesuffix(WEIGHT)


Wanted = Callable[[str], bool]
"""`wanted(name)`: whether a weight is read."""


def folded_note(has_bias: bool, has_norm: bool) -> tuple[str, ...]:
    """Return a note where a convolution may contain the BatchNorm that followed it."""
    if has_norm or not has_bias:
        return ()
    return ("a bias and no norm in the file: a folded BatchNorm would scale each filter",)


def rescaled(values: Tensor, scale: Tensor, zero: Tensor | None, *, name: str) -> Tensor:
    """Return (q − z)·s of integers or short floats, float64.

    One scale is for all entries, a vector for the outputs, and a tensor of as many sides for blocks.

    Raises:
        UserError: If the shapes do not fit.
    """
    return (values.double() - (0.0 if zero is None else _spread(zero, values, name))) * _spread(
        scale, values, name
    )


def _spread(scale: Tensor, values: Tensor, name: str) -> Tensor:
    """Return a scale for each entry, or one that broadcasts."""
    scale = scale.double()
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.ndim == 1 and len(scale) == len(values):
        return scale.view(-1, *[1] * (values.ndim - 1))
    if scale.ndim == values.ndim:
        for side, (own, wanted) in enumerate(zip(scale.shape, values.shape, strict=True)):
            block = -(-wanted // own) if own else 0
            if own == 0 or -(-wanted // block) != own:
                break
            scale = scale.repeat_interleave(block, side).narrow(side, 0, wanted) if own > 1 else scale
        else:
            return scale
    raise UserError(
        f"`{name}` ({shape_text(values.shape)}): a scale of shape {shape_text(scale.shape)} does not fit it; "
        "save the weight dequantized",
        code="MIM-M068",
    )
