"""Filters drawn from a Gaussian with a given covariance: f = ε·F, ε ~ N(0, I).

Every filter is an independent draw; where the covariance is spatial (one channel), every input channel of
every filter is one. Means are zero, and biases are never touched (arXiv 2210.03651).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimetic.config.registry import implementation
from mimetic.covariance.carry import PendingCovariance
from mimetic.covariance.components import covariance_of
from mimetic.covariance.config import CovarianceSource, Scale
from mimetic.covariance.context import Context
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.layout import filter_shape, stored, stored_shape
from mimetic.covariance.scale import repeats, scaled
from mimetic.errors import RunError, UserError
from mimetic.graph.site import Geometry, Site
from mimetic.initializers.resolved import Moments, ResolvedInit, Streams

SLOT = "filters"


def gaussian(spec: CovarianceSource, scale: Scale, site: Site, context: Context) -> ResolvedInit:
    """Resolve a layer's filters, drawn from a covariance at a scale.

    A plan from a network that is not trained yet can be shown, but not applied.

    Args:
        spec: The covariance.
        scale: Size of the filters.
        site: The layer.
        context: The claimed parameters, of which only `weight` contains filters, and the harvests.

    Raises:
        UserError: If the layer has no filters, or the covariance is one of other filters.
    """
    # 1. The claimed parameters are filters.
    names = context.parameters
    for name in names:
        _check_filters(site, name)
    geometry = _geometry(site)
    # 2. Their covariance, at the size that the scale gives it.
    unscaled = covariance_of(spec, site, context)
    arguments: dict[str, object] = {"covariance": spec.arguments_at(site.depth), "scale": scale.model_dump()}
    if isinstance(unscaled, PendingCovariance):
        return _pending(unscaled, arguments, site.layer)
    try:
        cov = scaled(unscaled, scale, geometry)
    except UserError as error:
        raise UserError(f"{site.layer}: {error}", code=error.code) from error
    if cov.provenance.digest is not None:
        arguments["digest"] = cov.provenance.digest

    # 3. Each parameter is drawn from its own stream; a scale on images is the last step of all.
    def sample(streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
        return {name: draw_filters(cov, geometry, streams(name, SLOT)) for name in names}

    resolved = ResolvedInit(
        name="gaussian",
        arguments=arguments,
        sample=sample,
        moments=dict.fromkeys(names, gaussian_moments(cov, geometry)),
        notes=_notes(cov, geometry),
        complex_parts=True,
    )
    if "finish" not in scale.functions:
        return resolved
    finished: ResolvedInit = implementation(scale, "finish")(resolved, scale, site, context)
    return finished


def gaussian_moments(cov: Covariance, geometry: Geometry) -> Moments:
    """Return the expected moments of the entries of filters drawn from a covariance.

    std = √(tr Σ / d), the root mean square over the coordinates.
    """
    count = geometry.out_channels * repeats(cov, geometry)
    return Moments(0.0, math.sqrt(cov.trace / cov.patch.size), count * cov.independent_entries)


def draw_filters(cov: Covariance, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Return filters drawn from a covariance in the layout the layer stores, float32 on the CPU."""
    count = geometry.out_channels * repeats(cov, geometry)
    filters_OIK = cov.sample(count, generator, dtype=torch.float32).view(filter_shape(geometry))
    return stored(filters_OIK, geometry)


def _pending(pending: PendingCovariance, arguments: dict[str, object], layer: str) -> ResolvedInit:
    """Return an initializer that can be shown but not sampled: its network is not trained yet."""

    def sample(_streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
        raise RunError(
            f"{layer}: {pending.source} is not harvested yet, so there is nothing to draw from; train its "
            "network and resolve the plan again (`mimetic run` does)",
            code="MIM-I071",
        )

    return ResolvedInit("gaussian", {**arguments, "harvest": "pending"}, sample, notes=pending.notes)


def _geometry(site: Site) -> Geometry:
    if site.geometry is None:
        raise UserError(
            f"{site.layer}: a {site.kind} layer has no filters to draw from a covariance; match convolution "
            "or linear layers, or use an `init` by name",
            code="MIM-I072",
        )
    return site.geometry


def _check_filters(site: Site, name: str) -> None:
    """Refuse parameters that do not contain the layer's filters."""
    shape = site.parameter(name).shape
    if name != site.main or len(shape) <= 1:
        repair = (
            "leave `param` at `weight`"
            if name != site.main
            else "match only layers with filters, e.g. `kind: conv`"
        )
        raise UserError(
            f"{site.layer}: covariance rules draw filters, and `{name}` of shape {shape} contains none; "
            f"{repair}, or use an `init` by name for it",
            code="MIM-I073",
        )
    expected = stored_shape(_geometry(site))
    if shape != expected:
        raise UserError(
            f"{site.layer}: `{name}` has shape {shape}, its geometry {expected}; use an `init` "
            "by name for this layer",
            code="MIM-I074",
        )


def _notes(cov: Covariance, geometry: Geometry) -> tuple[str, ...]:
    provenance = cov.provenance
    notes = list(provenance.notes)
    if provenance.repair is not None:
        notes.append(provenance.repair)
    if repeats(cov, geometry) > 1 and cov.patch.size > 1 and provenance.source != "identity":
        notes.append(f"a spatial covariance: {geometry.patch_channels} input channels drawn independently")
    return tuple(notes)
