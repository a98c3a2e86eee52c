"""What takes the place of a layer: the seam between a rewrite's section and the code that carries it out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.surgery.config import Rewrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A new layer for the place of an old one.

    Attributes:
        layer: Canonical name of the place.
        module: What stands there afterwards, on the old layer's device.
        becomes: What it is, in words for the plan.
        frozen: Names below it of the parameters that stay as they begin.
        fresh: Whether its values are still to be drawn, by each layer's `reset_parameters`.
    """

    layer: str
    module: nn.Module
    becomes: str
    frozen: tuple[str, ...] = ()
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Rewritten:
    """One layer that surgery replaced before the plan was made.

    Attributes:
        layer: Canonical name of its place.
        rewrite: Id of the rewrite.
        type: Registered name of the rewrite.
        arguments: Its arguments, plain values.
        was: The layer before, in words.
        becomes: What stands there now, in words.
        frozen: Names of the parameters that it freezes, below whichever layer they are called by.
        where: Place of the rewrite, e.g. `recipe.yaml:41`.
    """

    layer: str
    rewrite: str
    type: str
    arguments: Mapping[str, Any]
    was: str
    becomes: str
    frozen: tuple[str, ...] = ()
    where: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return what decides what the network computes, and nothing else: the part that is hashed."""
        return {"layer": self.layer, "type": self.type, "arguments": dict(self.arguments)}


@singledispatch
def replacements(
    spec: Rewrite,
    layers: Sequence[str],  # noqa: ARG001 - its registered kin use it
    modules: Mapping[str, nn.Module],  # noqa: ARG001
) -> list[Replacement]:
    """Return what a rewrite puts in the place of layers; changes nothing. One registered function per type.

    Args:
        spec: The rewrite.
        layers: Canonical names of the layers it matches, in the order of execution.
        modules: Every module of the network by canonical name.

    Raises:
        UserError: If it cannot replace one of the layers; says which.
    """
    raise UserError(f"surgery `{spec.type_name()}` is known to the language but nothing here carries it out")


def spatial_conv(layer: str, modules: Mapping[str, nn.Module], *, does: str) -> nn.Conv2d:
    """Return a layer that must be an ordinary k×k convolution of one group.

    Args:
        layer: Its canonical name.
        modules: Every module of the network by canonical name.
        does: What the rewrite does with it, for messages: "linear_combination replaces".

    Raises:
        UserError: If it is another kind of layer.
    """
    conv = modules[layer]
    if type(conv) is not nn.Conv2d:  # a class of its own may compute something else
        message = f"`{layer}` is a {type(conv).__name__}, and {does} torch's own Conv2d only; "
        raise UserError(f"{message}narrow `match`")
    if conv.groups != 1:
        message = f"`{layer}` is a convolution of {conv.groups} groups, and {does} those of one group only; "
        raise UserError(f"{message}narrow `match`, e.g. `groups: 1` or `kind: conv`")
    if max(conv.kernel_size) == 1:
        message = f"`{layer}` is a 1×1 convolution and has no spatial filters; "
        raise UserError(f"{message}narrow `match`, e.g. `kind: conv`")
    return conv


def unset(make: Callable[[], nn.Module], like: nn.Module) -> nn.Module:
    """Make a module without values on a layer's device, in its dtype and mode."""
    weight = next(like.parameters())
    with torch.device("meta"):
        module = make()
    module = module.to(weight.dtype).train(like.training)
    return module if weight.is_meta else module.to_empty(device=weight.device)


def size(conv: nn.Conv2d) -> str:
    """Return the sides of a kernel in words: `7×7`."""
    return "×".join(str(side) for side in conv.kernel_size)


from mimetic.surgery import factorised, fold, linear_combination, shared_filters  # noqa: E402, F401
