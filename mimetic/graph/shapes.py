"""Shape rules: the output shape of the most common layers, without values.

Torch's own rules for the meta device are right but slow (0.25 ms for a linear layer, 4 ms for a batch
normalization, measured with torch 2.15), and the first of them loads SymPy and the compiler's Python
(1.8 s, more than the rest of planning a small network). Each rule returns NotImplemented unless it is
certain, and leaves the rest, errors included, to torch.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Sides = int | tuple[int, ...]


def linear(input_NI: Tensor, /, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Return the output (N…, O) of a linear layer without values, or NotImplemented."""
    if not _plain(input_NI, weight, bias) or input_NI.ndim == 0 or weight.ndim != 2:  # noqa: PLR2004
        return NotImplemented
    if input_NI.shape[-1] != weight.shape[1]:
        return NotImplemented
    return input_NI.new_empty((*input_NI.shape[:-1], weight.shape[0]))


def conv(  # noqa: PLR0917 - torch's order
    input_NC: Tensor,
    /,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Sides | str = 0,
    dilation: Sides = 1,
    groups: int = 1,
) -> Any:
    """Return the output (N, O, …) of a batched convolution without values, or NotImplemented."""
    if not _plain(input_NC, weight, bias) or input_NC.ndim != weight.ndim or isinstance(padding, str):
        return NotImplemented
    if input_NC.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return NotImplemented
    sides = _windows(input_NC.shape[2:], weight.shape[2:], stride, padding, dilation)
    if min(sides) < 1:
        return NotImplemented
    return input_NC.new_empty((input_NC.shape[0], weight.shape[0], *sides))


def max_pool2d(  # noqa: PLR0917 - torch's order
    input_NC: Tensor,
    /,
    kernel_size: Sides,
    stride: Sides | None = None,
    padding: Sides = 0,
    dilation: Sides = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the output (N, C, …) of a batched max-pooling without values, or NotImplemented."""
    if not _valueless(input_NC) or input_NC.ndim != 4 or return_indices:  # noqa: PLR2004
        return NotImplemented
    kernel, pads = _sides(kernel_size, 2), _sides(padding, 2)
    steps = _sides(stride or kernel, 2)
    sides = _windows(input_NC.shape[2:], kernel, steps, pads, dilation)
    if min(sides) < 1 or any(2 * pad > width for pad, width in zip(pads, kernel, strict=True)):
        return NotImplemented
    wider = [side + step - 1 for side, step in zip(input_NC.shape[2:], steps, strict=True)]
    if ceil_mode and _windows(wider, kernel, steps, pads, dilation) != sides:  # one would not fit
        return NotImplemented
    return input_NC.new_empty((*input_NC.shape[:2], *sides))


def adaptive_avg_pool2d(input_NC: Tensor, /, output_size: Sides) -> Any:
    """Return the output (N, C, …) of adaptive average pooling, or NotImplemented."""
    if not _valueless(input_NC) or input_NC.ndim != 4 or min(input_NC.shape[1:]) < 1:  # noqa: PLR2004
        return NotImplemented
    return input_NC.new_empty((*input_NC.shape[:2], *_sides(output_size, 2)))


def batch_norm(  # noqa: PLR0917 - torch's order
    input_NC: Tensor,
    /,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Any:
    """Return the output (N, C, …) of a batch normalization without values, or NotImplemented."""
    if not _valueless(input_NC) or input_NC.ndim < 2 or eps <= 0:  # noqa: PLR2004
        return NotImplemented
    if not _fit(input_NC.shape[1:2], input_NC.dtype, running_mean, running_var, weight, bias):
        return NotImplemented
    values = input_NC.numel() // max(1, input_NC.shape[1])
    if values < 2 or not (training or (running_mean is not None and running_var is not None)):  # noqa: PLR2004
        return NotImplemented
    return input_NC.new_empty(input_NC.shape)


def layer_norm(
    input_NI: Tensor,
    /,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,  # noqa: ARG001
) -> Any:
    """Return the output (N…, I…) of a layer normalization without values, or NotImplemented."""
    if not _valueless(input_NI) or not normalized_shape:
        return NotImplemented
    last = input_NI.shape[-len(normalized_shape) :]
    if last != torch.Size(normalized_shape) or not _fit(last, input_NI.dtype, weight, bias):
        return NotImplemented
    return input_NI.new_empty(input_NI.shape)


def activation(input_N: Tensor, /, inplace: bool = False) -> Any:
    """Return the output (N…) of a rectifier or its like without values, or NotImplemented."""
    if not _valueless(input_N):
        return NotImplemented
    return input_N if inplace else input_N.new_empty(input_N.shape)


def gelu(input_N: Tensor, /, approximate: str = "none") -> Any:
    """Return the output (N…) of a GELU without values, or NotImplemented."""
    return activation(input_N) if approximate in {"none", "tanh"} else NotImplemented


def arithmetic(left: Tensor, right: Tensor | float, /) -> Any:
    """Return the sum, difference or product of two tensors without values, or NotImplemented."""
    if not _valueless(left):
        return NotImplemented
    if isinstance(right, float | int):
        return left.new_empty(left.shape)
    if not _valueless(right) or left.dtype != right.dtype:
        return NotImplemented
    sides = list(zip_longest(reversed(left.shape), reversed(right.shape), fillvalue=1))
    if any(one != other and 1 not in {one, other} for one, other in sides):
        return NotImplemented
    return left.new_empty([other if one == 1 else one for one, other in reversed(sides)])


def mean(input_N: Tensor, /, dim: Sides | None = None, keepdim: bool = False) -> Any:
    """Return the mean over some axes without values, or NotImplemented."""
    if not _valueless(input_N):
        return NotImplemented
    count = input_N.ndim
    axes = range(count) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {axis % count for axis in axes if -count <= axis < count}
    if not gone or len(gone) != len(axes):
        return NotImplemented
    sides = [(axis, 1 if axis in gone else side) for axis, side in enumerate(input_N.shape)]
    return input_N.new_empty([side for axis, side in sides if keepdim or axis not in gone])


def attention(
    query_LE: Tensor,
    key_SE: Tensor,
    value_SV: Tensor,
    /,
    *,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,  # noqa: ARG001
) -> Any:
    """Return the output (…, L, V) of scaled dot-product attention without values, or NotImplemented."""
    parts = (query_LE, key_SE, value_SV)
    if not all(_valueless(part) and part.ndim > 1 and part.dtype == query_LE.dtype for part in parts):
        return NotImplemented
    if not query_LE.shape[:-2] == key_SE.shape[:-2] == value_SV.shape[:-2]:
        return NotImplemented
    if query_LE.shape[-1] != key_SE.shape[-1] or key_SE.shape[-2] != value_SV.shape[-2]:
        return NotImplemented
    return query_LE.new_empty((*query_LE.shape[:-1], value_SV.shape[-1]))


def _valueless(tensor: Any) -> bool:
    """Tell whether this is a plain tensor of real numbers whose values are not there."""
    return type(tensor) in {Tensor, nn.Parameter} and tensor.is_meta and tensor.is_floating_point()


def _plain(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Tell whether this is the layer as torch defines it: no values, one dtype, one bias per output."""
    return _valueless(inputs) and inputs.dtype == weight.dtype and _fit(weight.shape[:1], weight.dtype, bias)


def _fit(shape: torch.Size, dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    """Tell whether the tensors that are given have this shape and dtype."""
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


_SHAPE_RULES: dict[Any, Callable[..., Any]] = {
    functional.linear: linear,
    functional.conv1d: conv,
    functional.conv2d: conv,
    functional.conv3d: conv,
    functional.max_pool2d: max_pool2d,
    functional.adaptive_avg_pool2d: adaptive_avg_pool2d,
    functional.batch_norm: batch_norm,
    functional.layer_norm: layer_norm,
    functional.gelu: gelu,
    **dict.fromkeys((functional.relu, functional.silu, functional.relu6, functional.hardswish), activation),
    **dict.fromkeys((Tensor.add, Tensor.sub, Tensor.mul, torch.add, torch.sub, torch.mul), arithmetic),
    **dict.fromkeys((Tensor.mean, torch.mean), mean),
    functional.scaled_dot_product_attention: attention,
}
"""Rules by the torch function they answer for."""


def answer(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return what a torch call returns, without values, or NotImplemented where no rule is sure of it."""
    rule = _SHAPE_RULES.get(func)
    try:
        return NotImplemented if rule is None else rule(*args, **named)
    except TypeError:  # options the rule does not know, or wrong ones
        return NotImplemented
