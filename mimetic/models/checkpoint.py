"""Load trained weights from a file into a model, all of its tensors or none.

Files are safetensors or PyTorch's own format; the latter is read with `weights_only`, so no code in it is
executed.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mimetic.errors import UserError
from mimetic.graph.names import canonical_name
from mimetic.graph.site import shape_text
from mimetic.limits import CHECKPOINT_BYTES

_NETWORKS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "student"),
    *("params_ema", "ema_model", "model_ema", "state_dict_ema", "teacher"),
)
"""Names under which training scripts save a network; averaged weights are taken where there are no others."""

_MAX_NESTED = 5
NOT_OF_NETWORK = re.compile(r"(\w+_)?(criterion|loss|loss_(fn|func)|metrics?|acc(uracy)?|n_averaged)\d*")
"""What a saved training module has beside its network: losses, metrics, counters of averaging."""

_DOT = re.compile(r"\.")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_TRIAL_PREFIX = "model/"
_OPTIONAL = "num_batches_tracked"
_PACKED = "._packed_params._packed_params"
"""Ends the name under which torch's quantized linear layers store a tuple, weight and bias."""

_MAX_LISTED = 3
_PADDING = 2**20
"""How many bytes more than the archive its entries may have; torch.save stores them uncompressed."""


def load_weights(model: nn.Module, path: Path, *, own_head: bool = False) -> None:
    """Copy the weights in a file into a model.

    The state dict may be nested under `state_dict`, `model`, `params_ema` and the like, and its names may
    have prefixes of wrappers (`module.`, `_orig_mod.`), one common prefix, or that of a network beside
    others, such as `student.`. Losses, metrics and counters are ignored. Tied tensors may be present once.

    Args:
        model: A model on a real device.
        path: Weights in safetensors format or as saved by `torch.save`.
        own_head: Whether the model's last layer stays as it is, of any number of outputs.

    Raises:
        UserError: If the file is missing, too large, unreadable or contains more than tensors, or if names
            or shapes are not the model's, or parameters are not finite. The model is unchanged then.
    """
    fit_weights(model, read_tensors(path), where=str(path), own_head=own_head)


def fit_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, where: str, own_head: bool = False
) -> None:
    """Copy tensors into a model's parameters and buffers by name, all of them or none.

    On the meta device nothing is copied, but names and shapes are checked. With `own_head`, the last linear
    layer or convolution of the model keeps its own weights.

    Raises:
        UserError: If names or shapes are not the model's, or parameters are not finite. Buffers may be
            infinite, since some networks store masks.
    """
    # 1. Which of the naming schemes is that of the model.
    targets = {name: t for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    weights = _matching_names(weights, targets)
    if own_head:
        head = _last_layer(model)
        targets, weights = (
            {name: t for name, t in tensors.items() if name.rpartition(".")[0] != head}
            for tensors in (targets, weights)
        )
    fitting, missing = _present(weights, targets)
    # 2. Names, shapes, kinds of numbers and values must fit before anything is copied.
    _check_architecture(weights, targets, fitting, missing, where=where)
    _check_numbers(weights, targets, fitting, where=where)
    infinite = [
        f"`{n}` ({shape_text(weights[n].shape)})"
        for n in fitting
        if isinstance(targets[n], nn.Parameter) and not weights[n].isfinite().all()
    ]
    if infinite:
        raise UserError(
            f"{where}: NaN or infinity in {_shorten(infinite)}: the training that wrote it "
            "diverged, or the file is damaged; use another checkpoint",
            code="MIM-M021",
        )
    with torch.no_grad():
        for name in fitting:
            targets[name].copy_(weights[name])


def _last_layer(model: nn.Module) -> str | None:
    """Return the name of a model's last linear layer or convolution; None where it has no such layer."""
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, _ConvNd))]
    return layers[-1] if layers else None


def _present(weights: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Return the names under which the checkpoint contains the model's tensors, and the tensors it lacks.

    A tied tensor has several names; one of them is enough.
    """
    names_of: dict[int, list[str]] = {}
    for name, tensor in targets.items():
        names_of.setdefault(id(tensor), []).append(name)
    fitting, missing = [], []
    for names in names_of.values():
        found = next((name for name in names if name in weights), None)
        if found is not None:
            fitting.append(found)
        elif not names[0].endswith(_OPTIONAL):
            missing.append(names[0])
    return fitting, missing


def _check_architecture(
    weights: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    fitting: Sequence[str],
    missing: Sequence[str],
    *,
    where: str,
) -> None:
    """Refuse a checkpoint whose names or shapes are not the model's."""
    shapes = [
        f"`{n}` {shape_text(weights[n].shape)} instead of {shape_text(targets[n].shape)}"
        for n in fitting
        if weights[n].shape != targets[n].shape
    ]
    problems = [
        *_count([f"`{name}`" for name in missing], f"of the model's {len(targets)} tensors missing"),
        *_count([f"`{name}`" for name in weights if name not in targets], "unknown to it"),
        *_count(shapes, "of another shape"),
    ]
    if problems:
        raise UserError(
            f"{where}: a checkpoint of another architecture: {'; '.join(problems)}; build the network it "
            "was saved from (`model`, with its width, depth, `num_classes` and `in_channels`)",
            code="MIM-M020",
        )


def _check_numbers(
    weights: Mapping[str, Tensor], targets: Mapping[str, Tensor], fitting: Sequence[str], *, where: str
) -> None:
    """Refuse tensors whose values a copy would lose or change."""
    others = [
        f"`{name}` {found} instead of {wanted}"
        for name in fitting
        if (found := _numbers(weights[name])) != (wanted := _numbers(targets[name])) or weights[name].is_meta
    ]
    if others:
        raise UserError(
            f"{where}: tensors of other numbers than the model's: {_shorten(others)}; save "
            "`model.state_dict()` of a network with plain weights",
            code="MIM-M027",
        )


def _numbers(tensor: Tensor) -> str:
    """Return what kind of numbers a tensor has; within a kind, a copy only rounds."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "sparse or quantized numbers"
    if tensor.is_complex():
        return "complex numbers"
    return "real numbers" if tensor.is_floating_point() else "integers"


def _matching_names(weights: Mapping[str, Tensor], targets: Collection[str]) -> Mapping[str, Tensor]:
    """Return the network's tensors under the naming that matches most of the model's names."""
    plain = dict(weights)
    unwrapped = {canonical_name(name): tensor for name, tensor in plain.items()}
    namings = [_of_network(named, targets) for named in (plain, unwrapped)]
    namings += [_of_network(_below(unwrapped, prefix), targets) for prefix in _prefixes(namings[1], targets)]
    return max(namings, key=lambda named: sum(name in targets for name in named))


def _of_network(weights: Mapping[str, Tensor], targets: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors without those that a training module has beside its network."""
    return {
        name: tensor
        for name, tensor in weights.items()
        if name in targets or NOT_OF_NETWORK.fullmatch(name.partition(".")[0]) is None
    }


def _prefixes(weights: Mapping[str, Tensor], targets: Collection[str]) -> list[str]:
    """Return the prefixes that the network's names may have: one of all tensors, or a known one of some."""
    found = dict.fromkeys(
        name[: dot.end()] for name in weights for dot in _DOT.finditer(name) if name[dot.end() :] in targets
    )
    known = [prefix for prefix in found if prefix.split(".")[-2] in _NETWORKS]
    known.sort(key=lambda prefix: _NETWORKS.index(prefix.split(".")[-2]))
    return [*(prefix for prefix in found if all(name.startswith(prefix) for name in weights)), *known]


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}


def check_size(path: Path) -> int:
    """Return the size of a file of weights.

    Raises:
        UserError: If there is no such file, or it is too large.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such checkpoint; give a safetensors file or a PyTorch state dict",
            code="MIM-M022",
        )
    size = path.stat().st_size
    if CHECKPOINT_BYTES.is_exceeded_by(size):
        raise UserError(
            f"{path}: a file of {CHECKPOINT_BYTES.describe(size)}; {CHECKPOINT_BYTES.repair}, or save the "
            "weights alone",
            code="MIM-M023",
        )
    return size


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of safetensors or a PyTorch state dict, by name.

    Raises:
        UserError: If the file is missing, too large, unreadable or contains more than tensors.
    """
    size = check_size(path)
    with path.open("rb") as file:
        start = file.read(2)
    try:
        if start == b"PK":
            _check_expansion(path, size)
        content = _unpickle(path) if start[:1] == b"\x80" or start == b"PK" else load_file(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path}: neither safetensors nor a PyTorch state dict ({first_line(error)}); "
            "the file is damaged or not a checkpoint; save or copy it again",
            code="MIM-M024",
        ) from error
    tensors = {n: t for n, t in map(_unpacked, _unnest(content).items()) if isinstance(t, Tensor)}
    if not tensors:
        raise UserError(f"{path}: contains no named tensors; save `model.state_dict()`", code="MIM-M025")
    # The checkpoint of an unfinished trial also contains optimizer state.
    trial = {n.removeprefix(_TRIAL_PREFIX): t for n, t in tensors.items() if n.startswith(_TRIAL_PREFIX)}
    return trial or tensors


def _check_expansion(path: Path, size: int) -> None:
    """Refuse an archive whose entries are larger than the file: they would fill the memory when expanded."""
    with zipfile.ZipFile(path) as archive:
        expanded = sum(entry.file_size for entry in archive.infolist())
    if expanded > size + _PADDING:
        raise UserError(
            f"{path}: a compressed archive that expands from {CHECKPOINT_BYTES.describe(size)} to "
            f"{CHECKPOINT_BYTES.describe(expanded)}; save it by `torch.save`, which does not compress",
            code="MIM-M028",
        )


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch on foreign pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to execute the code.
        found = _GLOBAL.search(str(error))
        code = "" if found is None else f" ({found.group(1)})"
        raise UserError(
            f"{path}: contains more than tensors; reading it would execute code{code}; "
            "save `model.state_dict()` alone, or as safetensors",
            code="MIM-M026",
        ) from error


def _unnest(content: Any, depth: int = 0) -> Mapping[str, Any]:
    """Return the state dict inside the dict that a training script saved."""
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[key] for key in _NETWORKS if isinstance(content.get(key), Mapping)), None)
    return content if inner is None or depth == _MAX_NESTED else _unnest(inner, depth + 1)


def _unpacked(item: tuple[Any, Any]) -> tuple[str, Any]:
    """Return the name and value of an entry; of a quantized layer's packed parameters, its weight."""
    name, value = item
    if isinstance(name, str) and name.endswith(_PACKED) and isinstance(value, tuple) and value:
        return f"{name.removesuffix(_PACKED)}.weight".removeprefix("."), value[0]
    return (name, value) if isinstance(name, str) else ("", None)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _count(names: list[str], problem: str) -> list[str]:
    return [f"{len(names)} {problem} ({_shorten(names)})"] if names else []


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:_MAX_LISTED]) + (", …" if len(names) > _MAX_LISTED else "")
