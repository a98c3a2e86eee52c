"""Mamba and Mamba-2 of state-spaces/mamba, transformers and mimetic.

All use the names of the first: `in_proj`, `conv1d`, `A_log`, and `x_proj` with `dt_proj` (Mamba) or
`dt_bias` (Mamba-2). Names are accepted only if the shapes agree.
"""

from torch import Tensor, nn

from mimetic.graph.adapters.reading import Found, Matrix, matrix, slots_of, tensors_of
from mimetic.graph.computed import tensor_like
from mimetic.graph.own import own_children
from mimetic.graph.structure import Slot, StateSpace

_FLAT, _GRID, _BANK = 1, 2, 3
"""Dimensions of a vector, a matrix and a bank of one-dimensional filters."""


def mamba(module: nn.Module) -> Found | None:
    """Recognize Mamba: low-rank Δ, b and c are computed from x, and A is (D, S)."""
    log = tensor_like(module, "A_log")
    if log is None:
        return None
    conv = _conv(module)
    read, step = matrix(module, "x_proj"), matrix(module, "dt_proj")
    if conv is None or read is None or step is None or log.ndim != _GRID:
        return None
    inner, state = (int(side) for side in log.shape)
    rank = step.inputs
    agreed = (step.outputs, read.inputs, read.outputs, conv[0].shape[0])
    if agreed != (inner, inner, rank + 2 * state, inner) or read.transposed or step.bias is None:
        return None
    rows = _rows(read, {"write": (rank, state), "read": (rank + state, state)})
    slots = [*_conv_slots(conv), *rows, *slots_of(step, {"step": inner}), Slot("decay", "A_log", 0, inner)]
    tensors = {**_conv_tensors(conv), "x_proj.weight": read.weight, **tensors_of(step), "A_log": log}
    return Found("ssm", StateSpace(tuple(slots), inner, state), tensors)


def mamba2(module: nn.Module) -> Found | None:
    """Recognize Mamba-2: `in_proj` has rows for gate, x, b, c and Δ, and A is (H)."""
    log, bias = tensor_like(module, "A_log"), tensor_like(module, "dt_bias")
    if log is None or bias is None:
        return None
    conv = _conv(module)
    whole, out = matrix(module, "in_proj"), matrix(module, "out_proj")
    if conv is None or whole is None or out is None:
        return None
    heads, inner = int(log.shape[0]), out.inputs
    both = int(conv[0].shape[0]) - inner
    sizes = (both > 0, both % 2, whole.outputs, tuple(bias.shape), log.ndim, inner % heads)
    if sizes != (True, 0, 2 * inner + both + heads, (heads,), _FLAT, 0) or whole.transposed:
        return None
    groups = _groups(module, both // 2)
    parts = {
        "write": (2 * inner, both // 2),
        "read": (2 * inner + both // 2, both // 2),
        "step": (2 * inner + both, heads),
    }
    own = [Slot("step_bias", "dt_bias", 0, heads), Slot("decay", "A_log", 0, heads)]
    slots = (*_conv_slots(conv), *_rows(whole, parts), *own)
    tensors = {**_conv_tensors(conv), "in_proj.weight": whole.weight, "dt_bias": bias, "A_log": log}
    return Found("ssm", StateSpace(slots, inner, both // 2 // groups, heads, groups), tensors)


def _groups(module: nn.Module, width: int) -> int:
    """Return the number of groups a module declares, or one if none divides the width."""
    declared = (module.__dict__.get(name) for name in ("n_groups", "ngroups"))
    found = next((number for number in declared if isinstance(number, int) and number > 0), 1)
    return found if width % found == 0 else 1


def _conv(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Return weight and bias of the short depthwise convolution."""
    conv = own_children(module).get("conv1d")
    weight = None if conv is None else tensor_like(conv, "weight")
    if conv is None or weight is None or weight.ndim != _BANK or weight.shape[1] != 1:
        return None
    return weight, tensor_like(conv, "bias")


def _conv_slots(conv: tuple[Tensor, Tensor | None]) -> list[Slot]:
    channels = int(conv[0].shape[0])
    slots = [Slot("conv", "conv1d.weight", 0, channels)]
    return slots if conv[1] is None else [*slots, Slot("conv_bias", "conv1d.bias", 0, channels)]


def _conv_tensors(conv: tuple[Tensor, Tensor | None]) -> dict[str, Tensor]:
    named = {"conv1d.weight": conv[0], "conv1d.bias": conv[1]}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _rows(of: Matrix, parts: dict[str, tuple[int, int]]) -> list[Slot]:
    """Return slots for some of a layer's outputs, by (first, count); the others belong to no slot."""
    return [Slot(name, f"{of.path}.weight", at, at + count) for name, (at, count) in parts.items()]
