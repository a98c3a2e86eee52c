"""From a model section of a recipe to a module with the model's own initialization.

A model is one section in `mimetic.models.config` and one function (protocol `ModelBuilder`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy

from mimetic.ambient import fixed_settings
from mimetic.config.registry import implementation
from mimetic.errors import UserError
from mimetic.limits import LAYERS, PARAMETERS, Limit
from mimetic.models.config import Model
from mimetic.models.reset import reset_keyed
from mimetic.streams import keyed_global_rng


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build a model for, beside its section.

    Attributes:
        in_channels: Channels of the images, or size of the vocabulary.
        num_classes: Number of outputs.
        seed: Seed of the run.
        allow_code: Whether code named in the recipe may run.
        meta: Whether to build on the meta device, without values.
    """

    in_channels: int
    num_classes: int
    seed: int
    allow_code: bool = False
    meta: bool = False


class ModelBuilder(Protocol):
    """Function behind a model section: `def convmixer(spec: ConvMixer, request: Request) -> nn.Module`.

    It returns a new module with its own initialization, most simply by `build_layerwise` or `seeded_build`.
    Raises UserError if the section cannot be built.
    """

    def __call__(self, spec: Model, request: Request, /) -> nn.Module:
        """Build the model."""
        ...


@contextmanager
def _bounded_construction() -> Iterator[None]:
    """Stop a constructor inside the block that makes too many layers or parameters, as it makes them."""
    total = {LAYERS: 0.0, PARAMETERS: 0.0}

    def add(limit: Limit, amount: float) -> None:
        total[limit] += amount
        if limit.is_exceeded_by(total[limit]):
            raise UserError(
                f"the model has more than {limit.describe(total[limit] - 1)}; {limit.repair}", code="MIM-M051"
            )

    def count_layer(_module: nn.Module, _name: str, _child: nn.Module) -> None:
        add(LAYERS, 1.0)

    def count_parameter(_module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        add(PARAMETERS, 0.0 if is_lazy(parameter) else parameter.numel())

    hooks = [
        register_module_module_registration_hook(count_layer),
        register_module_parameter_registration_hook(count_parameter),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@fixed_settings()
@_bounded_construction()
def build(
    spec: Model,
    *,
    in_channels: int,
    num_classes: int,
    seed: int = 0,
    allow_code: bool = False,
    meta: bool = False,
) -> nn.Module:
    """Build a model with its own initialization.

    The initial values depend on `seed` only. Built-in models draw each layer under its own name (see
    `reset`), independently of other layers. Models of torchvision, timm and the user initialize themselves as
    a whole, under a random stream of the run's seed.

    Args:
        spec: Model section of a recipe; overrides `in_channels` and `num_classes` if it gives them.
        in_channels: Channels of the images.
        num_classes: Number of classes.
        seed: Seed of the run.
        allow_code: Whether a `type: python` model may run its factory.
        meta: Build on the meta device, in milliseconds and without values, instead of on the CPU.

    Raises:
        UserError: If the name is unknown, the arguments do not fit, or code may not run.
    """
    make: ModelBuilder = implementation(spec)
    request = Request(
        in_channels=in_channels if spec.in_channels is None else spec.in_channels,
        num_classes=num_classes if spec.num_classes is None else spec.num_classes,
        seed=seed,
        allow_code=allow_code,
        meta=meta,
    )
    return make(spec, request)


def reinitialize(
    model: nn.Module, spec: Model, *, in_channels: int, num_classes: int, seed: int
) -> nn.Module:
    """Restore a model in place to the state in which `build` returns it, and return it.

    Tensors keep their identity, device, dtype and memory format, so a compiled graph stays valid; values,
    buffers and `requires_grad` are those of a new model, bit for bit.
    The model is one that `build` made for the same section and shapes, possibly trained since.
    """
    fresh = build(spec, in_channels=in_channels, num_classes=num_classes, seed=seed)
    with torch.no_grad():
        for (name, old), (_, new) in zip(_tensors(model), _tensors(fresh), strict=True):
            if old.shape != new.shape:
                raise ValueError(f"`{name}` has shape {tuple(old.shape)}, a new model's {tuple(new.shape)}")
            old.copy_(new)
            if isinstance(old, nn.Parameter):
                old.requires_grad_(new.requires_grad)
    return model


def build_layerwise(make: Callable[..., nn.Module], request: Request, **arguments: object) -> nn.Module:
    """Build a model whose layers all have `reset_parameters`, and initialize each under its own name.

    Args:
        make: The class or a factory; called with `in_channels`, `num_classes` and `arguments`, on the meta
            device, so no value is drawn twice.
        request: What to build it for.
        **arguments: Further keyword arguments of `make`.
    """
    with torch.device("meta"):
        model = make(in_channels=request.in_channels, num_classes=request.num_classes, **arguments)
    return model if request.meta else reset_keyed(model.to_empty(device="cpu"), request.seed)


def seeded_build(make: Callable[[], nn.Module], request: Request) -> nn.Module:
    """Build a model that initializes itself, under the key (seed, "model")."""
    with keyed_global_rng(request.seed, "model"), torch.device("meta" if request.meta else "cpu"):
        return make()


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """List parameters and all buffers, including non-persistent ones, in order of registration."""
    return [*model.named_parameters(), *model.named_buffers()]
