"""Models of torchvision and timm by name, with random weights from their own laws.

Their constructors initialize in ways of their own (truncated normals, zeroed last layers), so each model is
built as a whole under one keyed stream. timm takes the number of input channels; torchvision's constructors
want three, so theirs is changed while the first convolution is being made: the constructor's own law then
applies to the layer as it is, fan-in included.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mimetic.errors import UserError
from mimetic.models import config as recipe
from mimetic.models.build import Request, as_whole, construct
from mimetic.models.libraries import import_library

_PRETRAINED = ("weights", "weights_backbone", "pretrained", "pretrained_cfg", "checkpoint_path")
_FIELDS = {"num_classes": "num_classes", "in_chans": "in_channels", "in_channels": "in_channels"}
_AUXILIARY = {"googlenet", "inception_v3"}
_RGB = 3


@construct.register
def torchvision(spec: recipe.Torchvision, request: Request) -> nn.Module:
    """Build a classification model of torchvision; it returns logits (N, classes).

    Auxiliary classifiers (GoogLeNet, Inception) are left out unless asked for: they change the output.
    """
    models = import_library("torchvision").models
    name = spec.name.lower()
    _check_known(name, models.list_models(module=models), library="torchvision")
    _check_arguments(spec.args, model=f"torchvision:{name}")
    arguments: dict[str, Any] = {"num_classes": request.num_classes, **spec.args}
    if name in _AUXILIARY:
        arguments = {"aux_logits": False, "init_weights": True, **arguments}

    def make() -> nn.Module:
        with _input_channels(request.in_channels, model=f"torchvision:{name}"):
            model: nn.Module = models.get_model(name, weights=None, **arguments)
        return model

    return _made(make, request, model=f"torchvision:{name}", arguments=spec.args)


@construct.register
def timm(spec: recipe.Timm, request: Request) -> nn.Module:
    """Build a model of timm; it returns logits (N, classes)."""
    library = import_library("timm")
    _check_known(spec.name, library.list_models(), library="timm")
    _check_arguments(spec.args, model=f"timm:{spec.name}")
    sizes = {"num_classes": request.num_classes, "in_chans": request.in_channels}

    def make() -> nn.Module:
        model: nn.Module = library.create_model(spec.name, pretrained=False, **sizes, **spec.args)
        return model

    return _made(make, request, model=f"timm:{spec.name}", arguments=spec.args)


def _made(
    make: Callable[[], nn.Module], request: Request, *, model: str, arguments: Mapping[str, Any]
) -> nn.Module:
    try:
        return as_whole(make, request)
    except UserError:
        raise
    except Exception as error:  # constructors raise whatever their arithmetic meets
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        given = f"with args {given} " if given else ""
        sizes = f"{request.in_channels} input channels and {request.num_classes} classes"
        raise UserError(
            f"`{model}` cannot be built {given}for {sizes}: {error}; "
            "`args` are the keyword arguments of its constructor"
        ) from error


@contextmanager
def _input_channels(count: int, *, model: str) -> Iterator[None]:
    """Give the first convolution of three input channels made inside the block `count` of them.

    torch calls the hook while the layer registers its weight, before the layer draws it.
    """
    changed: list[nn.Module] = []

    def change(module: nn.Module, name: str, weight: torch.Tensor) -> nn.Parameter | None:
        if changed or name != "weight" or not isinstance(module, nn.Conv2d) or module.in_channels != _RGB:
            return None
        changed.append(module)
        module.in_channels = count
        shape_OIHW = (weight.shape[0], count, *weight.shape[2:])
        return nn.Parameter(torch.empty(shape_OIHW, dtype=weight.dtype, device=weight.device))

    if count == _RGB:
        yield
        return
    hook = register_module_parameter_registration_hook(change)  # type: ignore[arg-type] # may return a parameter
    try:
        yield
    finally:
        hook.remove()
    if not changed:
        raise UserError(
            f"`{model}` has no convolution of {_RGB} input channels that could take {count}; "
            "choose another model, timm's take any number"
        )


def _check_known(name: str, known: list[str], *, library: str) -> None:
    if name in known:
        return
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(f'`{match}`' for match in close)}?" if close else ""
    hint = hint or f"`{library}.{'models.' if library == 'torchvision' else ''}list_models()` lists them"
    raise UserError(f"{library} has no classification model `{name}`; {hint}")


def _check_arguments(arguments: Mapping[str, Any], *, model: str) -> None:
    for name, value in arguments.items():
        if name in _PRETRAINED and value not in (None, False):
            raise UserError(
                f"args of `{model}`: `{name}: {value}` asks for trained weights, which would be downloaded; "
                "models start untrained here, so leave it out"
            )
        if name in _FIELDS:
            raise UserError(
                f"args of `{model}`: write `{_FIELDS[name]}: {value}` beside `name`, not in `args`"
            )
