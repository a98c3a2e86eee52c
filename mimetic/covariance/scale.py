"""How large the filters of a covariance are drawn.

A scale fixes the trace of the covariance of one whole filter (all its input channels), its expected
energy E‖f‖², and then multiplies the weights by `gain`. A spatial covariance (patch of one channel) is
drawn independently for every input channel, so a filter's trace is the spatial one times the channels.
"""

import math
from functools import singledispatch

from torch.nn.init import calculate_gain

from mimetic.config.registry import Component
from mimetic.covariance.config import Gain, Kaiming, Lsuv, MatchDefault, NoScale, StudyCompat, Trace, Xavier
from mimetic.covariance.covariance import Covariance
from mimetic.errors import UserError
from mimetic.graph.site import Geometry


def fans(geometry: Geometry) -> tuple[int, int]:
    """Return (fan_in, fan_out) by torch's convention on the stored weight.

    torch takes the stored weight's second and first sides, each times the pixels of the kernel; it does
    not divide the fan-out by the groups, and swaps the roles for transposed convolutions. GPT-2's Conv1D
    is a linear layer stored the other way around and has a linear layer's fans.
    """
    pixels = math.prod(geometry.kernel_size)
    if geometry.transposed and geometry.kernel_size:
        return geometry.out_channels // geometry.groups * pixels, geometry.in_channels * pixels
    return geometry.patch_channels * pixels, geometry.out_channels * pixels


def repeats(cov: Covariance, geometry: Geometry) -> int:
    """Return how many independent draws make one filter: its input channels for a spatial covariance.

    Raises:
        UserError: If the covariance is one of other filters.
    """
    patch = cov.patch
    if patch.kernel_size == geometry.kernel_size:
        if patch.channels == geometry.patch_channels:
            return 1
        if patch.channels == 1:
            return geometry.patch_channels
    filters = "×".join(str(side) for side in (geometry.patch_channels, *geometry.kernel_size))
    message = f"covariance `{cov.provenance.source}` over patches {patch} does not fit filters {filters}"
    raise UserError(f"{message} (channels × kernel); match other layers, or transfer the covariance")


def scaled(cov: Covariance, spec: Component, geometry: Geometry) -> Covariance:
    """Return the covariance at the size a `scale:` section asks for.

    Raises:
        UserError: If the scale is unknown, the covariance does not fit, or a zero one should grow.
    """
    found = repeats(cov, geometry) * cov.trace
    wanted = filter_trace(spec, geometry, found)
    gain = float(getattr(spec, "gain", 1.0))
    if found == 0.0:
        if wanted == 0.0:
            return cov
        message = f"covariance `{cov.provenance.source}` is zero and cannot be scaled to trace {wanted:.4g}"
        raise UserError(f"{message}; check what it was measured on, or use `scale: none`")
    return cov.scale_by(gain if wanted == found else gain * math.sqrt(wanted / found))


@singledispatch
def filter_trace(spec: Component, geometry: Geometry, found: float) -> float:  # noqa: ARG001
    """Return the trace a scale gives one filter before its gain, where the source's own is `found`.

    Other scales join by `filter_trace.register(TheirSpec)`.
    """
    raise UserError(f"the scale `{type(spec).type_name()}` is registered but nothing computes it")


@filter_trace.register(NoScale)
@filter_trace.register(Gain)
@filter_trace.register(Lsuv)  # whose size comes from the outputs, once everything is drawn
def _(spec: Component, geometry: Geometry, found: float) -> float:  # noqa: ARG001
    return found


@filter_trace.register
def _(spec: Kaiming, geometry: Geometry, found: float) -> float:  # noqa: ARG001
    fan_in, fan_out = fans(geometry)
    gain = calculate_gain(spec.nonlinearity)
    return gain * gain * geometry.fan_in / (fan_in if spec.mode == "fan_in" else fan_out)


@filter_trace.register
def _(spec: Xavier, geometry: Geometry, found: float) -> float:  # noqa: ARG001
    return 2.0 * geometry.fan_in / sum(fans(geometry))


@filter_trace.register
def _(spec: Trace, geometry: Geometry, found: float) -> float:  # noqa: ARG001
    return spec.trace


@filter_trace.register
def _(spec: MatchDefault, geometry: Geometry, found: float) -> float:  # noqa: ARG001
    return geometry.fan_in / (3.0 * fans(geometry)[0])


@filter_trace.register
def _(spec: StudyCompat, geometry: Geometry, found: float) -> float:
    return found * math.sqrt(2.0 / geometry.fan_in) / spec.divisor
