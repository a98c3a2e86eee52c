"""The weights in a file, without the network's code: safetensors, PyTorch state dict, npz or ONNX.

What a layer computes from several tensors is computed here: weight normalization g·v/|v|, spectral
normalization W/σ, pruning W·mask, and integers with a scale, (q − z)·s. No file is unpickled.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.graph.names import canonical_name
from mimetic.graph.site import shape_text
from mimetic.limits import CHECKPOINT_BYTES
from mimetic.models.checkpoint import NOT_OF_NETWORK, check_size, first_line, read_tensors
from mimetic.models.onnx_file import read_onnx
from mimetic.models.stored_weight import WEIGHT, StoredWeight, Wanted, folded_note, rescaled

_NUMBER = re.compile(r"(\d+)")
_PARAMETRIZED = re.compile(r"(?P<above>(.*\.)?)parametrizations\.(?P<local>[^.]+)\.original(?P<part>[01]?)")
_SCALES = ("weight_scale", "weight_scale_inv", "SCB", "scales", "scale")
_ZEROS = ("weight_zero_point", "zero_point")
_PARTS = ("_mask", "_u", "_v")
_INT8 = 127.0
_FEWEST_SIDES = 2


def read_weights(path: Path, wanted: Wanted = lambda _name: True) -> tuple[StoredWeight, ...]:
    """Return the weights of two or more sides in a file, in the order of its layers.

    The order is that of an ONNX graph, of a state dict, or of an npz archive. Safetensors are stored by name:
    they are sorted with numbers as numbers.

    Raises:
        UserError: If the file is missing, too large, damaged, or contains more than tensors, or a weight
            cannot be computed from what is stored.
    """
    if path.suffix == ".onnx":
        return tuple(read_onnx(path, wanted))
    tensors = _read_npz(path) if path.suffix == ".npz" else read_tensors(path)
    if path.suffix == ".safetensors":
        tensors = {name: tensors[name] for name in sorted(tensors, key=_by_number)}
    return tuple(_weights(tensors, wanted, str(path)))


# ------------------------------------------------------------------------------- files without a graph
def _read_npz(path: Path) -> dict[str, Tensor]:
    """Return the numbers in an npz archive by name; objects are refused.

    Raises:
        UserError: If it is missing, too large, damaged or contains objects.
    """
    check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
        bounded = not CHECKPOINT_BYTES.is_exceeded_by(expanded)
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if bounded}
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path}: not an npz archive of numbers ({first_line(error)}); save arrays by `numpy.savez`",
            code="MIM-M053",
        ) from error
    if not bounded:
        raise UserError(
            f"{path}: expands to {CHECKPOINT_BYTES.describe(expanded)}; {CHECKPOINT_BYTES.repair}",
            code="MIM-M052",
        )
    numbers = {name: array for name, array in found.items() if array.dtype.kind in "fiu"}
    return {n: torch.from_numpy(a.astype(a.dtype.newbyteorder("="))) for n, a in numbers.items()}


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts `blocks.10` behind `blocks.9`."""
    texts = [part.lstrip("0") if index % 2 else part for index, part in enumerate(_NUMBER.split(name))]
    return [(len(text) if index % 2 else 0, text) for index, text in enumerate(texts)]


def _weights(tensors: Mapping[str, Tensor], wanted: Wanted, where: str) -> Iterator[StoredWeight]:
    """Yield the weights as their layers use them, under canonical names."""
    # The tensors of the network, in the order of the file, under canonical names.
    own = {name: t for name, t in tensors.items() if NOT_OF_NETWORK.fullmatch(name.partition(".")[0]) is None}
    named = {canonical_name(name): tensor for name, tensor in reversed(own.items())}
    named = {name: named[name] for name in dict.fromkeys(map(canonical_name, own))}
    normed = any(name.endswith("running_mean") or _is_scale(name, t) for name, t in named.items())
    seen: set[str] = set()
    for stored in named:
        if _is_part(stored, named):
            continue
        name, compute = _recipe(stored, named)
        if name in seen or not wanted(name):
            continue
        seen.add(name)
        values, note = compute(f"{where}: `{name}`")
        if values.ndim < _FEWEST_SIDES or not (values.is_floating_point() or values.is_complex()):
            continue
        # The length of a bias shows whether a matrix is stored input first.
        bias = named.get(f"{name.removesuffix('weight')}bias") if name.endswith("weight") else None
        notes: tuple[str, ...] = () if note is None else (note,)
        if values.ndim > _FEWEST_SIDES:
            notes += folded_note(bias is not None, normed)
        yield StoredWeight(name, values, outputs=None if bias is None else bias.numel(), notes=notes)


def _is_part(stored: str, named: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor is a mask, a singular vector or a scale of a weight beside it."""
    if any(f"{stored.removesuffix(end)}_orig" in named for end in _PARTS if stored.endswith(end)):
        return True
    locals_ = (f".{local}" for local in (*_SCALES, *_ZEROS))
    end = next((end for end in locals_ if f".{stored}".endswith(end)), None)
    return end is not None and f"{f'.{stored}'.removesuffix(end)}{WEIGHT}".removeprefix(".") in named


def _is_scale(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor is the scale of a norm layer."""
    return tensor.ndim == 1 and name.endswith(WEIGHT)


Compute = Callable[[str], tuple[Tensor, str | None]]
"""`compute(where)` returns a weight in use, and a note of how it is computed."""


def _recipe(stored: str, named: Mapping[str, Tensor]) -> tuple[str, Compute]:
    """Return the name of the weight that a tensor is a part of, and how the weight is computed."""
    tensor = named[stored]
    found = _PARAMETRIZED.fullmatch(stored)
    if found is not None:
        name, prefix = found["above"] + found["local"], stored.removesuffix(f"original{found['part']}")
        parts = {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}
        return name, lambda where: _parametrized(parts, where)
    hooked = stored.removesuffix("_orig")
    if hooked != stored:
        return hooked, lambda where: _hooked(hooked, named, where)
    normed = stored.removesuffix("_g").removesuffix("_v")
    if normed != stored and {f"{normed}_g", f"{normed}_v"} <= named.keys():
        return normed, lambda where: _weight_norm(named[f"{normed}_g"], named[f"{normed}_v"], where)
    if tensor.is_quantized:
        return stored, lambda _: (tensor.dequantize(), f"dequantized from {_dtype(tensor)}")
    integers = not tensor.is_floating_point() and not tensor.is_complex()
    if stored.endswith("weight") and (integers or tensor.element_size() == 1):
        return stored, lambda where: _dequantized(stored, named, where)
    return stored, lambda _: (tensor, None)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _parametrized(parts: Mapping[str, Tensor], where: str) -> tuple[Tensor, str]:
    """Return a weight that `torch.nn.utils.parametrizations` computes."""
    if set(parts) == {"original0", "original1"}:
        return _weight_norm(parts["original0"], parts["original1"], where)
    if set(parts) == {"original", "0._u", "0._v"}:
        return _spectral_norm(parts["original"], parts["0._u"], parts["0._v"])
    raise UserError(
        f"{where} is computed by an unknown parametrization from {listed(parts)}; "
        "remove it from the network before saving (`remove_parametrizations`), or choose other `layers`",
        code="MIM-M054",
    )


def _hooked(name: str, named: Mapping[str, Tensor], where: str) -> tuple[Tensor, str]:
    """Return a weight that a hook of `torch.nn.utils` computes."""
    original = named[f"{name}_orig"]
    if f"{name}_mask" in named:
        return original * named[f"{name}_mask"], "pruned"
    if f"{name}_u" in named and f"{name}_v" in named:
        return _spectral_norm(original, named[f"{name}_u"], named[f"{name}_v"])
    raise UserError(
        f"{where} is computed from `{name}_orig`, and how is unknown; save the network without the hook, or "
        "choose other `layers`",
        code="MIM-M055",
    )


def _weight_norm(norm: Tensor, direction: Tensor, where: str) -> tuple[Tensor, str]:
    """Return g·v/|v|, the norm taken over the sides that g does not have."""
    norm, direction = norm.double(), direction.double()
    if norm.numel() == 1:
        length = direction.norm()
    else:
        if norm.ndim != direction.ndim or any(
            own not in {1, side} for own, side in zip(norm.shape, direction.shape, strict=True)
        ):
            raise UserError(
                f"{where}: a norm of shape {shape_text(norm.shape)} does not fit a direction of shape "
                f"{shape_text(direction.shape)}; the file is damaged, save it again",
                code="MIM-M056",
            )
        sides = [side for side, own in enumerate(norm.shape) if own == 1]
        length = direction.square().sum(dim=sides, keepdim=True).sqrt()
    length = torch.where(length == 0.0, torch.ones_like(length), length)
    return norm * direction / length, "computed by weight norm"


def _spectral_norm(original: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, str]:
    """Return W/(uᵀWv), with the vectors that the file stores."""
    rows = original.double()
    if len(left) != len(original):  # of a transposed convolution
        rows = rows.transpose(0, 1)
    sigma = left.double() @ rows.reshape(len(left), -1) @ right.double()
    return original.double() / sigma, "computed by spectral norm"


def _dequantized(name: str, named: Mapping[str, Tensor], where: str) -> tuple[Tensor, str]:
    """Return the weight that is stored as integers, or as floats of one byte.

    Raises:
        UserError: If their scale is unknown.
    """
    tensor, above = named[name], name.removesuffix("weight")
    scale = next((local for local in _SCALES if f"{above}{local}" in named), None)
    if scale is None:
        raise UserError(
            f"{where} has entries of {_dtype(tensor)} and no scale beside it ({', '.join(_SCALES)}); save "
            "the weights dequantized, or choose other `layers`",
            code="MIM-M057",
        )
    zero = next((named[f"{above}{local}"] for local in _ZEROS if f"{above}{local}" in named), None)
    factor = named[f"{above}{scale}"].double() / (_INT8 if scale == "SCB" else 1.0)
    return rescaled(tensor, factor, zero, name=where), f"dequantized from {_dtype(tensor)}"
