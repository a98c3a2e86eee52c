"""Trained weights into a model: from a file, or those a library publishes.

Files are safetensors or PyTorch's own format; the latter is read with `weights_only`, so nothing in it
is executed. A model takes all of its tensors from a checkpoint or none of them.
"""

import pickle
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mimetic.errors import UserError
from mimetic.graph.names import canonical_name
from mimetic.models.config import Model, Timm, Torchvision
from mimetic.models.libraries import import_library

MAX_BYTES = 16 * 2**30
"""Largest file that is read."""

_NESTS = ("state_dict", "model_state_dict", "model", "net")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_OURS = "model/"
_COUNTER = "num_batches_tracked"
_SHOWN = 3


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the weights in a file into a model.

    The state dict may lie under `state_dict` or `model`, and its names may carry what wrappers add
    (`module.`, `_orig_mod.`) or one segment in front of all of them. Tied tensors may be there once.

    Args:
        model: A model on a real device.
        path: Weights as safetensors, or as PyTorch writes a state dict.

    Raises:
        UserError: If the file is missing, too large, unreadable or holds more than tensors, or if names
            or shapes are not the model's, or parameters are not finite; nothing is written then.
    """
    fit_weights(model, _read(path), where=str(path))


def load_published(model: nn.Module, section: Model, weights: str) -> None:
    """Copy the weights that torchvision or timm publishes for a model into it, downloading them.

    Args:
        model: The model, with as many classes and input channels as the weights have.
        section: The model's section.
        weights: A name such as IMAGENET1K_V1 (torchvision) or a tag such as in1k (timm), or DEFAULT.

    Raises:
        UserError: If there are no such weights, they cannot be downloaded, or they do not fit.
    """
    if not isinstance(section, Torchvision | Timm):
        message = f"`{section.type_name()}` has no published weights; give a file with `checkpoint`, or name "
        raise UserError(message + "a `torchvision` or `timm` model")
    named = f"weights {weights} of {section.type_name()}:{section.name}"
    found = _torchvision(section, weights) if isinstance(section, Torchvision) else _timm(section, weights)
    names = set(model.state_dict())
    # Auxiliary classifiers, which models are built without.
    kept = {name: t for name, t in found.items() if name in names or not name.lower().startswith("aux")}
    fit_weights(model, kept, where=named)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into a model's parameters and buffers by name, all of them or none.

    On the meta device nothing is copied, and the tensors are looked at all the same.

    Raises:
        UserError: If names or shapes are not the model's, or parameters are not finite; buffers may be
            infinite, for some networks keep masks there.
    """
    owners: dict[int, list[str]] = {}
    targets = {name: t for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    for name, tensor in targets.items():
        owners.setdefault(id(tensor), []).append(name)
    found = _renamed(weights, targets)
    fitting: list[str] = []
    missing, shapes = [], []
    for names in owners.values():
        held = next((name for name in names if name in found), None)
        if held is None:
            missing += [] if names[0].endswith(_COUNTER) else [names[0]]
        elif found[held].shape != targets[held].shape:
            shapes.append(f"`{held}` {_sides(found[held])} instead of {_sides(targets[held])}")
        else:
            fitting.append(held)
    unexpected = [name for name in found if name not in targets]
    if missing or unexpected or shapes:
        raise UserError(_mismatch(where, len(targets), missing, unexpected, shapes))
    parameters = [name for name in fitting if isinstance(targets[name], nn.Parameter)]
    _must_be_finite({name: found[name] for name in parameters}, where)
    with torch.no_grad():
        for name in fitting:
            targets[name].copy_(found[name])


def _must_be_finite(weights: Mapping[str, Tensor], where: str) -> None:
    odd = [f"`{name}` ({_sides(tensor)})" for name, tensor in weights.items() if not tensor.isfinite().all()]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        message = f"{where}: NaN or infinity in {', '.join(odd[:_SHOWN])}{more}: the training that wrote it "
        raise UserError(message + "diverged, or the file is damaged; take another checkpoint")


def _mismatch(
    where: str, count: int, missing: Collection[str], unexpected: Collection[str], shapes: Collection[str]
) -> str:
    parts = [
        f"{len(names)} {what} ({', '.join([*names][:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for names, what in (
            ([f"`{name}`" for name in missing], f"of the model's {count} tensors missing"),
            ([f"`{name}`" for name in unexpected], "unknown to it"),
            (shapes, "of another shape"),
        )
        if names
    ]
    return (
        f"{where}: a checkpoint of another architecture: {'; '.join(parts)}; build the network it was saved "
        "from (`model`, with its width, depth, `num_classes` and `in_channels`)"
    )


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file by name."""
    if not path.is_file():
        message = f"{path}: there is no such checkpoint; give the path of a safetensors file or a PyTorch "
        raise UserError(message + "state dict")
    if path.stat().st_size > MAX_BYTES:
        message = f"{path}: larger than {MAX_BYTES / 2**30:.0f} GiB and not read; save the weights alone"
        raise UserError(message)
    with path.open("rb") as file:
        start = file.read(2)
    try:
        content = _pickled(path) if start[:1] == b"\x80" or start == b"PK" else load_file(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can break a reader anywhere
        message = f"{path}: neither safetensors nor a PyTorch state dict ({_first_line(error)}); "
        raise UserError(message + "the file is damaged or no checkpoint; save or copy it again") from error
    tensors = {name: t for name, t in _unnested(content).items() if isinstance(t, Tensor)}
    if not tensors:
        message = f"{path}: holds no tensors by name; save `model.state_dict()`"
        raise UserError(message)
    if any(name.startswith(_OURS) for name in tensors):  # a trial of ours, stopped on its way
        return {name.removeprefix(_OURS): t for name, t in tensors.items() if name.startswith(_OURS)}
    return tensors


def _unnested(content: Any) -> Mapping[str, Any]:
    """Return the state dict inside what training scripts put around it."""
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[nest] for nest in _NESTS if isinstance(content.get(nest), Mapping)), None)
    return content if inner is None else _unnested(inner)


def _pickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch on pickle protocols of others
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))  # what torch advises beside it is to run the code
        code = "" if found is None else f" ({found.group(1)})"
        message = f"{path}: holds more than tensors, which would be executed to be read{code}; "
        raise UserError(message + "save `model.state_dict()` alone, or as safetensors") from error


def _renamed(weights: Mapping[str, Tensor], targets: Collection[str]) -> dict[str, Tensor]:
    """Return the weights under the names that agree best with the model's."""
    plain = dict(weights)
    bare = {canonical_name(name): tensor for name, tensor in plain.items()}
    fronts = {name.partition(".")[0] for name in bare}
    inner = {name.partition(".")[2]: tensor for name, tensor in bare.items()} if len(fronts) == 1 else {}
    return max((plain, bare, inner), key=lambda named: sum(name in targets for name in named))


def _torchvision(section: Torchvision, weights: str) -> Mapping[str, Tensor]:
    models = import_library("torchvision").models
    entries = models.get_model_weights(section.name.lower()).__members__
    if weights not in entries:
        raise UserError(_unknown(weights, section, entries))
    try:
        return dict(entries[weights].get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # downloads raise whatever their libraries meet
        raise UserError(_offline(weights, section, error)) from error


def _timm(section: Timm, weights: str) -> Mapping[str, Tensor]:
    library = import_library("timm")
    tags = [name.partition(".")[2] for name in library.list_pretrained(f"{section.name}*")]
    if not tags or (weights != "DEFAULT" and weights not in tags):
        raise UserError(_unknown(weights, section, ["DEFAULT", *tags] if tags else []))
    name = section.name if weights == "DEFAULT" else f"{section.name}.{weights}"
    try:
        model: nn.Module = library.create_model(name, pretrained=True, **section.args)
    except Exception as error:  # downloads raise whatever their libraries meet
        raise UserError(_offline(weights, section, error)) from error
    return model.state_dict()


def _unknown(weights: str, section: Torchvision | Timm, known: Collection[str]) -> str:
    named = f"{section.type_name()}:{section.name}"
    if not known:
        return f"there are no published weights of `{named}`; give a file with `checkpoint`"
    return (
        f"there are no weights `{weights}` of `{named}`; choose one of {', '.join(f'`{k}`' for k in known)}"
    )


def _offline(weights: str, section: Torchvision | Timm, error: Exception) -> str:
    return (
        f"the weights {weights} of `{section.type_name()}:{section.name}` cannot be downloaded "
        f"({_first_line(error)}); go online once, or give their file with `checkpoint`"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _sides(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) if tensor.ndim > 0 else "a number"
