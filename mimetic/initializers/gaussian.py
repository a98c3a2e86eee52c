"""Filters drawn from a Gaussian with a given covariance: f = ε·F, ε ~ N(0, I).

Every filter is an independent draw; where the covariance is spatial (one channel), every input channel
of every filter is. Means are zero and biases are never touched (arXiv 2210.03651).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mimetic.config.registry import implementation
from mimetic.covariance.carry import PendingCovariance
from mimetic.covariance.components import covariance_of
from mimetic.covariance.config import CovarianceSource, Scale
from mimetic.covariance.context import NO_HARVESTS, Context, Harvests
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.layout import filter_shape, stored, stored_shape
from mimetic.covariance.scale import repeats, scaled
from mimetic.errors import RunError, UserError
from mimetic.graph.site import Geometry, Site
from mimetic.initializers.draw import Moments, ResolvedInit, Streams

SLOT = "filters"


def gaussian(
    spec: CovarianceSource,
    scale: Scale,
    site: Site,
    names: tuple[str, ...],
    harvests: Harvests = NO_HARVESTS,
) -> ResolvedInit:
    """Return the draw of a layer's filters from a covariance and a scale.

    Args:
        spec: The covariance.
        scale: How large the filters are.
        site: The layer.
        names: Local names of the parameters a rule claims there; only `weight` holds filters.
        harvests: What trained networks and data gave. Of a network that is not trained yet the draw can
            be shown, but not sampled.

    Raises:
        UserError: If the layer has no filters, or the covariance is not one of such filters.
    """
    for name in names:
        _check_filters(site, name)
    unscaled = covariance_of(spec, site, Context(names, harvests))
    geometry = _geometry(site)
    arguments: dict[str, Any] = {"covariance": spec.arguments_at(site.depth), "scale": scale.model_dump()}
    if isinstance(unscaled, PendingCovariance):
        return _pending(unscaled, arguments, site.layer)
    try:
        cov = scaled(unscaled, scale, geometry)
    except UserError as error:
        message = f"{site.layer}: {error}"
        raise UserError(message) from error
    if cov.provenance.digest is not None:
        arguments["digest"] = cov.provenance.digest
    drawn = ResolvedInit(
        name="gaussian",
        arguments=arguments,
        sample=lambda streams, layer: _sample(cov, geometry, names, streams),  # noqa: ARG005
        moments=dict.fromkeys(names, gaussian_moments(cov, geometry)),
        notes=_notes(cov, geometry),
    )
    if "last" not in scale.functions:
        return drawn
    finished: ResolvedInit = implementation(scale, "last")(drawn, scale, site, harvests)
    return finished


def gaussian_moments(cov: Covariance, geometry: Geometry) -> Moments:
    """Return what the entries of filters drawn from a covariance are expected to be.

    std = √(tr Σ / d), the root mean square over the coordinates.
    """
    count = geometry.out_channels * repeats(cov, geometry)
    return Moments(0.0, math.sqrt(cov.trace / cov.patch.size), count * cov.independent_entries)


def draw_filters(cov: Covariance, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Return filters drawn from a covariance in the layout the layer stores, float32 on the CPU."""
    count = geometry.out_channels * repeats(cov, geometry)
    filters_OIK = cov.sample(count, generator, dtype=torch.float32).view(filter_shape(geometry))
    return stored(filters_OIK, geometry)


def _pending(pending: PendingCovariance, arguments: dict[str, Any], layer: str) -> ResolvedInit:
    """Return a draw that can be shown but not sampled: its network is not trained yet."""

    def sample(_streams: Streams, _module: nn.Module) -> Mapping[str, Tensor]:
        message = f"{layer}: {pending.source} is not harvested yet, so there is nothing to draw from; "
        raise RunError(message + "train its network and resolve the plan again (`mimetic run` does)")

    return ResolvedInit("gaussian", {**arguments, "harvest": "pending"}, sample, notes=pending.notes)


def _sample(
    cov: Covariance, geometry: Geometry, names: tuple[str, ...], streams: Streams
) -> Mapping[str, Tensor]:
    return {name: draw_filters(cov, geometry, streams(name, SLOT)) for name in names}


def _geometry(site: Site) -> Geometry:
    if site.geometry is None:
        message = f"{site.layer}: a {site.kind} layer has no filters to draw from a covariance; "
        raise UserError(message + "match convolution or linear layers, or use an `init` by name")
    return site.geometry


def _check_filters(site: Site, name: str) -> None:
    """Refuse parameters that do not hold the layer's filters."""
    shape = next(parameter.shape for parameter in site.parameters if parameter.local == name)
    if name != "weight" or len(shape) < 2:  # noqa: PLR2004
        message = f"{site.layer}: covariance rules draw filters, and `{name}` of shape {shape} is not one; "
        raise UserError(message + "leave `param` at `weight`, or use an `init` by name for it")
    expected = stored_shape(_geometry(site))
    if shape != expected:
        message = f"{site.layer}: `{name}` has shape {shape}, its geometry says {expected}; "
        raise UserError(message + "use an `init` by name for this layer")


def _notes(cov: Covariance, geometry: Geometry) -> tuple[str, ...]:
    told = cov.provenance
    notes = list(told.notes)
    if told.repair is not None:
        notes.append(told.repair)
    if repeats(cov, geometry) > 1 and cov.patch.size > 1 and told.source != "identity":
        notes.append(f"a spatial covariance: {geometry.patch_channels} input channels drawn independently")
    return tuple(notes)
