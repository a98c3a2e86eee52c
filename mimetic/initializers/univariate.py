"""Draws by a named law of `torch.nn.init`, one tensor and one stream per parameter.

Tensors are filled in float64 and cast to float32 at the end: torch's float32 kernels give other last bits
with other instruction sets (measured: AVX2 against none), its float64 ones and the rounding do not.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mimetic.config.registry import Component
from mimetic.covariance.layout import stored_shape
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.draw import Moments, ResolvedInit, Streams
from mimetic.initializers.laws import Law, law

SLOT = "values"

_PIECE = 1 << 15
"""Entries drawn in float64 at once, a multiple of the sixteen that torch's normal law draws together: so the
values are those of one long draw, the float64 ones stay in a core's cache, and no second thread is taken."""


def univariate(spec: Component, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of parameters by a named law, each from its own stream.

    A matrix stored input first (GPT-2's Conv1D) is drawn as the equivalent linear layer's and turned, so
    it has the same fans, and the same values.

    Raises:
        UserError: If the law cannot fill one of the parameters.
    """
    laws: dict[str, tuple[Law, tuple[int, ...], bool]] = {}
    moments: dict[str, Moments] = {}
    for parameter in site.parameters:
        if parameter.local not in names:
            continue
        turned = _input_first(site, parameter.shape)
        shape = parameter.shape[::-1] if turned else parameter.shape
        try:
            found = law(spec, shape)
        except UserError as error:
            message = f"{parameter.name}: {error}"
            raise UserError(message) from error
        laws[parameter.local] = (found, shape, turned)
        moments[parameter.local] = found.moments

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:  # noqa: ARG001
        return {name: _fill(*drawn, streams(name, SLOT)) for name, drawn in laws.items()}

    return ResolvedInit(
        name=spec.type_name(),
        arguments=spec.model_dump(exclude={"type"}),
        sample=sample,
        moments=moments,
        apart=all(found.piecewise for found, _, _ in laws.values()),
    )


def _fill(found: Law, shape: tuple[int, ...], turned: bool, stream: torch.Generator) -> Tensor:
    tensor = _in_pieces(found, shape, stream) if found.piecewise else _at_once(found, shape, stream)
    return (tensor.t() if turned else tensor).to(torch.float32).contiguous()


def _at_once(found: Law, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    tensor = torch.empty(shape, dtype=torch.float64, device="cpu")
    if tensor.numel() > 0:
        found.fill(tensor, stream)
    return tensor


def _in_pieces(found: Law, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Draw independent entries piece by piece; the last piece is the longest, so never below sixteen."""
    # numpy asks the system for large pages: touching small ones takes a sixth of the time of a normal draw.
    tensor = torch.from_numpy(np.empty(shape, dtype=np.float32))
    flat = tensor.view(-1)
    count = flat.numel()
    piece = torch.empty(min(count, 2 * _PIECE), dtype=torch.float64, device="cpu")
    start = 0
    while start < count:
        stop = count if count - start < 2 * _PIECE else start + _PIECE
        drawn = piece[: stop - start]
        found.fill(drawn, stream)
        flat[start:stop].copy_(drawn)
        start = stop
    return tensor


def _input_first(site: Site, shape: tuple[int, ...]) -> bool:
    """Tell whether a parameter is a linear layer's matrix stored input first, as GPT-2's Conv1D does."""
    geometry = site.geometry
    linear = geometry is not None and geometry.transposed and not geometry.kernel_size
    return linear and len(shape) > 1 and geometry is not None and shape == stored_shape(geometry)
