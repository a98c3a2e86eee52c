"""Initializers of one tensor: a distribution of its entries, drawn from the stream of the parameter's name.

Tensors are filled in float64 and cast to float32 at the end (to float64 for a parameter of float64): torch's
float32 kernels give other last bits with other instruction sets (measured: AVX2 against none), its float64
kernels and the rounding do not.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from mimetic.covariance.context import Context
from mimetic.covariance.layout import stored_shape
from mimetic.errors import UserError
from mimetic.graph.site import Parameter, Site
from mimetic.initializers.config import Init
from mimetic.initializers.resolved import Moments, ResolvedInit, Streams

SLOT = "values"

Shape = tuple[int, ...]
Spec = TypeVar("Spec", bound=Init)

_CHUNK = 1 << 15
"""Entries drawn in float64 at once. A multiple of 16, the number of normals torch draws together, so the
values are those of one long draw; the float64 values stay in a core's cache, and torch takes no second
thread."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a tensor is filled from a generator, and the moments of its entries.

    Attributes:
        fill: `fill(tensor, generator)` fills a float64 tensor in place.
        moments: Expected moments of the entries.
        elementwise: Whether entries are independent of each other and of the tensor's shape. `fill` is then
            called with one chunk of the tensor after another, on a thread beside others.
    """

    fill: Callable[[Tensor, Generator], object]
    moments: Moments
    elementwise: bool = False


def per_tensor(
    distribution_of: Callable[[Spec, Shape], Distribution],
) -> Callable[[Spec, Site, Context], ResolvedInit]:
    """Turn `f(spec, shape) -> Distribution` into the function behind an `init`.

    Every parameter that the rule claims is drawn separately. A matrix stored input first (GPT-2's Conv1D) is
    drawn as the equivalent linear layer's and transposed: it has the same fans, and the same values.

    The decorated function raises UserError where the distribution cannot fill such a tensor; the message is
    completed by the parameter's name.
    """

    @wraps(distribution_of)
    def resolve(spec: Spec, site: Site, context: Context) -> ResolvedInit:
        draws: dict[str, tuple[Distribution, Shape, bool, torch.dtype]] = {}
        for local in context.parameters:
            parameter = site.parameter(local)
            transposed = _is_input_first(site, parameter.shape)
            shape = parameter.shape[::-1] if transposed else parameter.shape
            try:
                draws[local] = (distribution_of(spec, shape), shape, transposed, _dtype(parameter))
            except UserError as error:
                raise UserError(f"{parameter.name}: {error}", code=error.code) from error

        def sample(streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
            return {local: _sample(*drawn, streams(local, SLOT)) for local, drawn in draws.items()}

        return ResolvedInit(
            name=spec.type_name(),
            arguments=spec.model_dump(exclude={"type"}),
            sample=sample,
            moments={local: distribution.moments for local, (distribution, *_) in draws.items()},
            thread_safe=all(distribution.elementwise for distribution, *_ in draws.values()),
            complex_parts=all(distribution.elementwise for distribution, *_ in draws.values()),
        )

    return resolve


def independent(shape: Shape, std: float, *, mean: float = 0.0) -> Moments:
    """Return the moments of independent entries; deterministic ones where they do not vary."""
    return Moments(mean, std, float(math.prod(shape)) if std > 0.0 else 0.0)


def check_dimensions(spec: Init, shape: Shape, allowed: tuple[int, ...] | range) -> None:
    """Refuse tensors with another number of dimensions than the initializer is defined for.

    Raises:
        UserError: With the number it needs.
    """
    if len(shape) in allowed:
        return
    needs = "2 or more" if isinstance(allowed, range) else " or ".join(str(side) for side in allowed)
    raise UserError(
        f"{spec.type_name()} needs a tensor with {needs} dimensions, and this one has shape {shape}; "
        "narrow `match` (`param: weight`, a `kind`), or choose normal or constant",
        code="MIM-I001",
    )


def _dtype(parameter: Parameter) -> torch.dtype:
    """Return the dtype to which a draw is rounded: float32, but nothing of float64 is lost."""
    return torch.float64 if parameter.dtype == "float64" else torch.float32


def _sample(
    distribution: Distribution, shape: Shape, transposed: bool, dtype: torch.dtype, stream: Generator
) -> Tensor:
    draw = _sample_chunks if distribution.elementwise else _sample_whole
    tensor = draw(distribution, shape, dtype, stream)
    return (tensor.t() if transposed else tensor).contiguous()


def _sample_whole(distribution: Distribution, shape: Shape, dtype: torch.dtype, stream: Generator) -> Tensor:
    tensor = torch.empty(shape, dtype=torch.float64, device="cpu")
    if tensor.numel() > 0:
        distribution.fill(tensor, stream)
    return tensor.to(dtype)


def _sample_chunks(distribution: Distribution, shape: Shape, dtype: torch.dtype, stream: Generator) -> Tensor:
    """Draw independent entries chunk by chunk; the last chunk is the longest, so never below sixteen."""
    # numpy requests large pages: touching small ones takes a sixth of the time of a normal draw.
    tensor = torch.from_numpy(np.empty(shape, dtype=str(dtype).removeprefix("torch.")))
    flat = tensor.view(-1)
    count = flat.numel()
    buffer = torch.empty(min(count, 2 * _CHUNK), dtype=torch.float64, device="cpu")
    start = 0
    while start < count:
        stop = count if count - start < 2 * _CHUNK else start + _CHUNK
        chunk = buffer[: stop - start]
        distribution.fill(chunk, stream)
        flat[start:stop].copy_(chunk)
        start = stop
    return tensor


def _is_input_first(site: Site, shape: Shape) -> bool:
    """Return whether a parameter is a linear layer's matrix stored input first, as GPT-2's Conv1D does."""
    geometry = site.geometry
    if geometry is None or not geometry.transposed or geometry.kernel_size:
        return False
    return len(shape) > 1 and shape == stored_shape(geometry)
