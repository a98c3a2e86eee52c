"""Shape rules: the output shape of the most common layers, without values.

Torch's own rules for the meta device are right but slow (0.25 ms for a linear layer, 4 ms for a batch
normalization, measured with torch 2.15), and the first of them loads SymPy and the compiler's Python
(1.8 s, more than the rest of planning a small network). Each rule returns NotImplemented unless it is
certain, and leaves the rest, errors included, to torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Sides = int | tuple[int, ...]
C = TypeVar("C")


def linear(input_NI: Tensor, /, weight: Tensor, bias: Tensor | None = None) -> object:
    """Return the output (N…, O) of a linear layer without values, or NotImplemented."""
    if not _plain(input_NI, weight, bias) or input_NI.ndim == 0 or weight.ndim != 2:  # noqa: PLR2004
        return NotImplemented
    if input_NI.shape[-1] != weight.shape[1]:
        return NotImplemented
    return _empty((*input_NI.shape[:-1], weight.shape[0]), input_NI)


@dataclass(frozen=True)
class ConvCall:
    """The arguments of a convolution, in torch's order."""

    input_NC: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Sides = 1
    padding: Sides | str = 0
    dilation: Sides = 1
    groups: int = 1


def conv(call: ConvCall) -> object:
    """Return the output (N, O, …) of a batched convolution without values, or NotImplemented."""
    sample, weight = call.input_NC, call.weight
    if not _plain(sample, weight, call.bias) or sample.ndim != weight.ndim or isinstance(call.padding, str):
        return NotImplemented
    if sample.shape[1] != weight.shape[1] * call.groups or weight.shape[0] % call.groups:
        return NotImplemented
    sides = _windows(sample.shape[2:], weight.shape[2:], call.stride, call.padding, call.dilation)
    if min(sides) < 1:
        return NotImplemented
    return _empty((sample.shape[0], weight.shape[0], *sides), sample)


@dataclass(frozen=True)
class MaxPoolCall:
    """The arguments of a max-pooling, in torch's order."""

    input_NC: Tensor
    kernel_size: Sides
    stride: Sides | None = None
    padding: Sides = 0
    dilation: Sides = 1
    ceil_mode: bool = False
    return_indices: bool = False


def max_pool2d(call: MaxPoolCall) -> object:
    """Return the output (N, C, …) of a batched max-pooling without values, or NotImplemented."""
    sample = call.input_NC
    if not _valueless(sample) or sample.ndim != 4 or call.return_indices:  # noqa: PLR2004
        return NotImplemented
    kernel, pads = _sides(call.kernel_size, 2), _sides(call.padding, 2)
    steps = _sides(call.stride or kernel, 2)
    sides = _windows(sample.shape[2:], kernel, steps, pads, call.dilation)
    if min(sides) < 1 or any(2 * pad > width for pad, width in zip(pads, kernel, strict=True)):
        return NotImplemented
    wider = [side + step - 1 for side, step in zip(sample.shape[2:], steps, strict=True)]
    if call.ceil_mode and _windows(wider, kernel, steps, pads, call.dilation) != sides:  # one would not fit
        return NotImplemented
    return _empty((*sample.shape[:2], *sides), sample)


def adaptive_avg_pool2d(input_NC: Tensor, /, output_size: Sides) -> object:
    """Return the output (N, C, …) of adaptive average pooling, or NotImplemented."""
    if not _valueless(input_NC) or input_NC.ndim != 4 or min(input_NC.shape[1:]) < 1:  # noqa: PLR2004
        return NotImplemented
    return _empty((*input_NC.shape[:2], *_sides(output_size, 2)), input_NC)


@dataclass(frozen=True)
class BatchNormCall:
    """The arguments of a batch normalization, in torch's order."""

    input_NC: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def vectors(self) -> tuple[Tensor | None, ...]:
        """Return the tensors with one value per channel."""
        return self.running_mean, self.running_var, self.weight, self.bias


def batch_norm(call: BatchNormCall) -> object:
    """Return the output (N, C, …) of a batch normalization without values, or NotImplemented."""
    sample = call.input_NC
    if not _valueless(sample) or sample.ndim < 2 or call.eps <= 0:  # noqa: PLR2004
        return NotImplemented
    if not _fit(sample.shape[1:2], sample.dtype, *call.vectors()):
        return NotImplemented
    values = sample.numel() // max(1, sample.shape[1])
    tracked = call.running_mean is not None and call.running_var is not None
    if values < 2 or not (call.training or tracked):  # noqa: PLR2004
        return NotImplemented
    return _empty(sample.shape, sample)


def layer_norm(
    input_NI: Tensor,
    /,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,  # noqa: ARG001
) -> object:
    """Return the output (N…, I…) of a layer normalization without values, or NotImplemented."""
    if not _valueless(input_NI) or not normalized_shape:
        return NotImplemented
    last = input_NI.shape[-len(normalized_shape) :]
    if last != torch.Size(normalized_shape) or not _fit(last, input_NI.dtype, weight, bias):
        return NotImplemented
    return _empty(input_NI.shape, input_NI)


def activation(input_N: Tensor, /, inplace: bool = False) -> object:
    """Return the output (N…) of a rectifier or its like without values, or NotImplemented."""
    if not _valueless(input_N):
        return NotImplemented
    return input_N if inplace else _empty(input_N.shape, input_N)


def gelu(input_N: Tensor, /, approximate: str = "none") -> object:
    """Return the output (N…) of a GELU without values, or NotImplemented."""
    return activation(input_N) if approximate in {"none", "tanh"} else NotImplemented


def arithmetic(left: Tensor, right: Tensor | float, /) -> object:
    """Return the sum, difference or product of two tensors without values, or NotImplemented."""
    if not _valueless(left):
        return NotImplemented
    if isinstance(right, float | int):
        return _empty(left.shape, left)
    if not _valueless(right) or left.dtype != right.dtype:
        return NotImplemented
    sides = list(zip_longest(reversed(left.shape), reversed(right.shape), fillvalue=1))
    if any(one != other and 1 not in {one, other} for one, other in sides):
        return NotImplemented
    return _empty([other if one == 1 else one for one, other in reversed(sides)], left)


def mean(input_N: Tensor, /, dim: Sides | None = None, keepdim: bool = False) -> object:
    """Return the mean over some axes without values, or NotImplemented."""
    if not _valueless(input_N):
        return NotImplemented
    count = input_N.ndim
    axes = range(count) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {axis % count for axis in axes if -count <= axis < count}
    if not gone or len(gone) != len(axes):
        return NotImplemented
    sides = [(axis, 1 if axis in gone else side) for axis, side in enumerate(input_N.shape)]
    return _empty([side for axis, side in sides if keepdim or axis not in gone], input_N)


def attention(
    query_LE: Tensor,
    key_SE: Tensor,
    value_SV: Tensor,
    /,
    *,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,  # noqa: ARG001
) -> object:
    """Return the output (…, L, V) of scaled dot-product attention without values, or NotImplemented."""
    parts = (query_LE, key_SE, value_SV)
    if not all(_valueless(part) and part.ndim > 1 and part.dtype == query_LE.dtype for part in parts):
        return NotImplemented
    if not query_LE.shape[:-2] == key_SE.shape[:-2] == value_SV.shape[:-2]:
        return NotImplemented
    if query_LE.shape[-1] != key_SE.shape[-1] or key_SE.shape[-2] != value_SV.shape[-2]:
        return NotImplemented
    return _empty((*query_LE.shape[:-1], value_SV.shape[-1]), query_LE)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a tensor without values; `new_empty` runs Python on the meta device, four times as slow."""
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _valueless(tensor: object) -> bool:
    """Return whether this is a plain tensor of real numbers whose values are not there."""
    return (
        isinstance(tensor, Tensor)
        and type(tensor) in {Tensor, nn.Parameter}
        and tensor.is_meta
        and tensor.is_floating_point()
    )


def _plain(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether this is the layer as torch defines it: no values, one dtype, one bias per output."""
    return _valueless(inputs) and inputs.dtype == weight.dtype and _fit(weight.shape[:1], weight.dtype, bias)


def _fit(shape: torch.Size, dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    """Return whether the tensors that are given have this shape and dtype."""
    return all(tensor is None or (tensor.shape == shape and tensor.dtype == dtype) for tensor in tensors)


def _sides(value: Sides, count: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * count
    return tuple(value) if len(value) == count else tuple(value) * count


def _windows(sides: Sequence[int], kernel: Sequence[int], *options: Sides) -> list[int]:
    """Return how often a window fits along each side; options are stride, padding and dilation."""
    steps, pads, gaps = (_sides(value, len(kernel)) for value in options)
    return [
        (side + 2 * pad - gap * (width - 1) - 1) // step + 1
        for side, width, step, pad, gap in zip(sides, kernel, steps, pads, gaps, strict=True)
    ]


def _bound(rule: Callable[[C], object], call: type[C]) -> Callable[..., object]:
    """Return a rule that takes the arguments of its call one by one."""
    return lambda *args, **named: rule(call(*args, **named))


_SHAPE_RULES: dict[object, Callable[..., object]] = {
    functional.linear: linear,
    functional.conv1d: _bound(conv, ConvCall),
    functional.conv2d: _bound(conv, ConvCall),
    functional.conv3d: _bound(conv, ConvCall),
    functional.max_pool2d: _bound(max_pool2d, MaxPoolCall),
    functional.adaptive_avg_pool2d: adaptive_avg_pool2d,
    functional.batch_norm: _bound(batch_norm, BatchNormCall),
    functional.layer_norm: layer_norm,
    functional.gelu: gelu,
    **dict.fromkeys((functional.relu, functional.silu, functional.relu6, functional.hardswish), activation),
    **dict.fromkeys((Tensor.add, Tensor.sub, Tensor.mul, torch.add, torch.sub, torch.mul), arithmetic),
    **dict.fromkeys((Tensor.mean, torch.mean), mean),
    functional.scaled_dot_product_attention: attention,
}
"""Rules by the torch function they answer for."""


def answer(func: object, args: tuple[object, ...], named: dict[str, object]) -> object:
    """Return what a torch call returns, without values, or NotImplemented where no rule is sure of it."""
    rule = _SHAPE_RULES.get(func)
    try:
        return NotImplemented if rule is None else rule(*args, **named)
    except TypeError:  # options the rule does not know, or wrong ones
        return NotImplemented
