"""Models of torchvision and timm by name, randomly initialized, and the weights published for them.

The constructors initialize in their own ways (truncated normals, zeroed last layers), so each model is built
as a whole under one keyed random stream. timm takes the number of input channels; torchvision's constructors
assume three, so the first convolution is changed while it is constructed: the constructor's initialization
then applies to the layer as it is, fan-in included.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mimetic.config.suggest import did_you_mean, listed
from mimetic.errors import UserError
from mimetic.models.build import Request, seeded_build
from mimetic.models.checkpoint import first_line, fit_weights
from mimetic.models.config import Model, Timm, Torchvision

_AUXILIARY = {"googlenet", "inception_v3"}
_RGB = 3


def import_library(name: str) -> Any:
    """Import torchvision or timm.

    Raises:
        UserError: If it is not installed, or was built for another release of torch.
    """
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot be imported ({error}); install the release made for torch {torch.__version__}: "
            f"`pip install torch {name}` in one command chooses a pair",
            code="MIM-M001",
        ) from error


def torchvision(spec: Torchvision, request: Request) -> nn.Module:
    """Build a classification model of torchvision; it returns logits (N, classes).

    Auxiliary classifiers (GoogLeNet, Inception) are left out unless `args` include them, because they change
    the output.
    """
    models = import_library("torchvision").models
    name = spec.name.lower()
    _check_name(name, models.list_models(module=models), "torchvision", "torchvision.models.list_models()")
    arguments = {"num_classes": request.num_classes, **spec.args}
    if name in _AUXILIARY:
        arguments = {"aux_logits": False, "init_weights": True, **arguments}

    def make() -> nn.Module:
        with _input_channels(request.in_channels, model=f"torchvision:{name}"):
            model: nn.Module = models.get_model(name, weights=None, **arguments)
        return model

    return _make(make, request, model=f"torchvision:{name}", arguments=spec.args)


def timm(spec: Timm, request: Request) -> nn.Module:
    """Build a model of timm; it returns logits (N, classes)."""
    library = import_library("timm")
    known = library.list_pretrained() if "." in spec.name else library.list_models()
    _check_name(spec.name, known, "timm", "timm.list_models()")
    sizes = {"num_classes": request.num_classes, "in_chans": request.in_channels}

    def make() -> nn.Module:
        model: nn.Module = library.create_model(spec.name, pretrained=False, **sizes, **spec.args)
        return model

    return _make(make, request, model=f"timm:{spec.name}", arguments=spec.args)


def _make(
    make: Callable[[], nn.Module], request: Request, *, model: str, arguments: Mapping[str, object]
) -> nn.Module:
    try:
        return seeded_build(make, request)
    except UserError:
        raise
    except Exception as error:  # a constructor may raise anything
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UserError(
            f"`{model}` cannot be built with args ({given}) for {request.in_channels} input channels and "
            f"{request.num_classes} classes: {error}; `args` are the keyword arguments of its constructor",
            code="MIM-M004",
        ) from error


@contextmanager
def _input_channels(count: int, *, model: str) -> Iterator[None]:
    """Give the first convolution of three input channels constructed in the block `count` of them.

    torch calls the hook when the layer registers its weight, before the layer initializes it.
    """
    changed: list[nn.Module] = []

    def change(module: nn.Module, name: str, weight: Tensor) -> nn.Parameter | None:
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
            "choose another model, timm's take any number",
            code="MIM-M005",
        )


def _check_name(name: str, known: Collection[str], library: str, listing: str) -> None:
    if name not in known:
        hint = did_you_mean(name, known) or f"`{listing}` lists them"
        raise UserError(f"{library} has no classification model `{name}`; {hint}", code="MIM-M006")


def load_published(model: nn.Module, section: Model, weights: str, *, own_head: bool = False) -> None:
    """Download the weights that torchvision or timm publishes for a model, and copy them into it.

    Args:
        model: The model, with the classes and input channels of the weights.
        section: The model's section.
        weights: A name such as IMAGENET1K_V1 (torchvision), a tag such as in1k (timm), or DEFAULT.
        own_head: Whether the model's last layer stays as it is, of any number of outputs.

    Raises:
        UserError: If there are no such weights, they cannot be downloaded, or they do not fit.
    """
    if not isinstance(section, Torchvision | Timm):
        raise UserError(
            f"`{section.type_name()}` has no published weights; give a file with `checkpoint`, or use a "
            "`torchvision` or `timm` model",
            code="MIM-M007",
        )
    label = f"{section.type_name()}:{section.name}"
    find = _torchvision_weights if isinstance(section, Torchvision) else _timm_weights
    known, download = find(section)
    if weights not in known:
        raise UserError(
            f"there are no published weights `{weights}` of `{label}`; "
            + (f"choose one of {listed(known)}" if known else "give a file with `checkpoint`"),
            code="MIM-M008",
        )
    try:
        tensors = download(weights)
    except Exception as error:  # download libraries raise anything
        raise UserError(
            f"the weights {weights} of `{label}` cannot be downloaded ({first_line(error)}); "
            "go online once, or give their file with `checkpoint`",
            code="MIM-M009",
        ) from error
    # Models are built without auxiliary classifiers, so their weights are dropped.
    names = model.state_dict().keys()
    tensors = {n: t for n, t in tensors.items() if n in names or not n.lower().startswith("aux")}
    fit_weights(model, tensors, where=f"weights {weights} of {label}", own_head=own_head)


Weights = tuple[Collection[str], Callable[[str], Mapping[str, Tensor]]]
"""Names of the published weights of a model, and the function that downloads them."""


def _torchvision_weights(section: Torchvision | Timm) -> Weights:
    entries = import_library("torchvision").models.get_model_weights(section.name.lower()).__members__

    def download(weights: str) -> Mapping[str, Tensor]:
        return dict(entries[weights].get_state_dict(progress=False, check_hash=True))

    return entries, download


def _timm_weights(section: Torchvision | Timm) -> Weights:
    library = import_library("timm")
    network = section.name.partition(".")[0]
    names = (name.partition(".") for name in library.list_pretrained(f"{network}*"))
    tags = [tag for name, _, tag in names if name == network]

    def download(weights: str) -> Mapping[str, Tensor]:
        name = section.name if weights == "DEFAULT" else f"{network}.{weights}"
        model: nn.Module = library.create_model(name, pretrained=True, **section.args)
        return model.state_dict()

    return ["DEFAULT", *tags] if tags else [], download
