"""How large the filters of a covariance are drawn.

A scale fixes the trace of the covariance of one whole filter (all its input channels), its expected
energy E‖f‖², and then multiplies the weights by `gain`. A spatial covariance (patch of one channel) is
drawn independently for every input channel, so a filter's trace is the spatial one times the channels.
"""

import math

from torch.nn.init import calculate_gain

from mimetic.config.registry import implementation
from mimetic.covariance.config import Kaiming, KaimingNfm, MatchDefault, Scale, Trace, Xavier
from mimetic.covariance.covariance import Covariance
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, shape_text


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
    filters = shape_text((geometry.patch_channels, *geometry.kernel_size))
    raise UserError(
        f"covariance `{cov.provenance.source}` over patches {patch} does not fit filters {filters} "
        "(channels × kernel); match other layers, or transfer the covariance",
        code="MIM-V051",
    )


def scaled(cov: Covariance, spec: Scale, geometry: Geometry) -> Covariance:
    """Return the covariance at the size of a `scale:` section.

    Raises:
        UserError: If the covariance does not fit, or is zero and its target is not.
    """
    found = repeats(cov, geometry) * cov.trace
    target = float(implementation(spec)(spec, geometry, found))
    if found == 0.0:
        if target == 0.0:
            return cov
        raise UserError(
            f"covariance `{cov.provenance.source}` is zero and cannot be scaled to trace {target:.4g}; "
            "check what it was measured on, or use `scale: none`",
            code="MIM-V050",
        )
    return cov.scale_by(spec.gain if target == found else spec.gain * math.sqrt(target / found))


def unchanged(_spec: Scale, _geometry: Geometry, found: float) -> float:
    """Return the source's own trace."""
    return found


def kaiming(spec: Kaiming, geometry: Geometry, _found: float) -> float:
    """Return gain²·d / fan for filters of d weights."""
    fan_in, fan_out = fans(geometry)
    gain = calculate_gain(spec.nonlinearity)
    return gain * gain * geometry.fan_in / (fan_in if spec.mode == "fan_in" else fan_out)


def xavier(_spec: Xavier, geometry: Geometry, _found: float) -> float:
    """Return 2·d / (fan_in + fan_out) for filters of d weights."""
    return 2.0 * geometry.fan_in / sum(fans(geometry))


def fixed_trace(spec: Trace, _geometry: Geometry, _found: float) -> float:
    """Return the section's trace."""
    return spec.trace


def match_default(_spec: MatchDefault, geometry: Geometry, _found: float) -> float:
    """Return d / (3·fan_in), the energy of a filter of U(±1/√fan_in)."""
    return geometry.fan_in / (3.0 * fans(geometry)[0])


def kaiming_nfm(spec: KaimingNfm, geometry: Geometry, found: float) -> float:
    """Return the source's trace times √(2/d), over the divisor."""
    return found * math.sqrt(2.0 / geometry.fan_in) / spec.divisor
