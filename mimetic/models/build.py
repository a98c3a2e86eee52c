"""From a model's section of a recipe to a module with the model's own initialization.

Each type of model has one function registered with `construct`; plugins register theirs in the same way.
What it needs to know beside the section comes in a `Request`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.models.config import Model
from mimetic.models.reset import reset_keyed
from mimetic.streams import keyed_global_rng


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is built for.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
        seed: Seed of the run.
        allow_code: Whether code named in the recipe may run.
        meta: Whether the model is only looked at: it then lies on the meta device and holds no values.
    """

    in_channels: int
    num_classes: int
    seed: int
    allow_code: bool = False
    meta: bool = False


def build(
    spec: Model, *, in_channels: int, num_classes: int, seed: int, allow_code: bool = False
) -> nn.Module:
    """Build a model on the CPU with its own initialization.

    The initial values depend on `seed` and on nothing else. Our own models draw each layer under its own
    name (see `reset`), so that a layer's values do not depend on other layers. Those of torchvision, timm
    and the user initialize themselves as a whole under a stream of the run's seed.

    Args:
        spec: Model section of a recipe; its `in_channels` and `num_classes`, where given, override.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        seed: Seed of the run.
        allow_code: Whether a `type: python` model may run its factory.

    Raises:
        UserError: If the name is unknown, the arguments do not fit, or code may not run.
    """
    request = Request(in_channels=in_channels, num_classes=num_classes, seed=seed, allow_code=allow_code)
    return _construct(spec, request)


def build_meta(
    spec: Model, *, in_channels: int, num_classes: int, seed: int = 0, allow_code: bool = False
) -> nn.Module:
    """Build a model on the meta device: names and shapes in milliseconds, no values, no memory.

    Arguments and errors are those of `build`.
    """
    request = Request(
        in_channels=in_channels, num_classes=num_classes, seed=seed, allow_code=allow_code, meta=True
    )
    return _construct(spec, request)


def reinitialize(
    model: nn.Module,
    spec: Model,
    *,
    in_channels: int,
    num_classes: int,
    seed: int,
    allow_code: bool = False,
) -> nn.Module:
    """Bring a model in place to the state in which `build` returns it, and return it.

    Tensors keep their identity, device, dtype and memory format, so a compiled graph stays valid; values,
    buffers and `requires_grad` are those of a new model, bit for bit.

    Args:
        model: What `build` returned for the same section and shapes, however it was trained since.
        spec: Model section of a recipe.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        seed: Seed of the run.
        allow_code: Whether a `type: python` model may run its factory.
    """
    fresh = build(spec, in_channels=in_channels, num_classes=num_classes, seed=seed, allow_code=allow_code)
    with torch.no_grad():
        for (name, old), (_, new) in zip(_tensors(model), _tensors(fresh), strict=True):
            if old.shape != new.shape:
                raise ValueError(f"`{name}` has shape {tuple(old.shape)}, a new model's {tuple(new.shape)}")
            old.copy_(new)
            if isinstance(old, nn.Parameter):
                old.requires_grad_(new.requires_grad)
    return model


@singledispatch
def construct(spec: Model, request: Request) -> nn.Module:  # noqa: ARG001 - its registered kin use it
    """Return a new initialized model; one registered function per section.

    Raises:
        UserError: If the section cannot be carried out.
    """
    raise UserError(f"model type `{spec.type_name()}` is known to the language but nothing here builds it")


def by_layer(make: Callable[[], nn.Module], request: Request) -> nn.Module:
    """Build a model whose layers all have `reset_parameters`, and initialize each under its own name.

    `make` runs on the meta device: no value is drawn that would be overwritten.
    """
    with torch.device("meta"):
        model = make()
    return model if request.meta else reset_keyed(model.to_empty(device="cpu"), request.seed)


def as_whole(make: Callable[[], nn.Module], request: Request) -> nn.Module:
    """Build a model with an initialization of its own, under the key (seed, "model")."""
    with keyed_global_rng(request.seed, "model"), torch.device("meta" if request.meta else "cpu"):
        return make()


def _construct(spec: Model, request: Request) -> nn.Module:
    return construct(
        spec,
        Request(
            in_channels=request.in_channels if spec.in_channels is None else spec.in_channels,
            num_classes=request.num_classes if spec.num_classes is None else spec.num_classes,
            seed=request.seed,
            allow_code=request.allow_code,
            meta=request.meta,
        ),
    )


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """List parameters and all buffers, those outside the state dict included, in order of registration."""
    return [*model.named_parameters(), *model.named_buffers()]


from mimetic.models import own, python, zoo  # noqa: E402, F401 - temporary: registers
