"""Carry a harvest to a layer of another network (arXiv 2210.03651, extended).

Three questions are answered from geometries alone, so that a plan can be shown before anything is
trained: which layers of the harvest stand for ours (`correspond`), how their input channels become ours,
and how their kernels do. Each answer leaves a note for the plan's reader. Layers are brought to our patch
first and mixed then, so that neighbors may have different geometries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mimetic.covariance.algebra import mixed
from mimetic.covariance.config import Transferred
from mimetic.covariance.correspond import Part, correspondence
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.harvest import Harvest, Harvested, described
from mimetic.covariance.shrinkage import refined
from mimetic.covariance.transfer import grey_from_rgb, marginal, resized, rgb_from_grey, tiled
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Site

Channels = Literal["same", "marginal", "tile", "grey", "rgb"]
"""What becomes of input channels: they stay, are averaged to a spatial covariance, are repeated in turn, or
the first layer's colours are summed to grey or grey spread over the colours."""

_RGB = 3


@dataclass(frozen=True, slots=True)
class PendingCovariance:
    """A covariance that is not measured yet: what is known before its network is trained.

    Attributes:
        source: What will be measured, e.g. `filters of stage small`.
        patch: What its coordinates will mean.
        notes: How it will be carried over.
    """

    source: str
    patch: PatchGeometry
    notes: tuple[str, ...] = ()


def transfer_covariance(spec: Transferred, harvest: Harvest, site: Site) -> Covariance | PendingCovariance:
    """Return the covariance that a harvest gives the filters of a layer, with notes of how.

    Args:
        spec: Which layers correspond, and what a change of geometry keeps.
        harvest: Of the network it comes from.
        site: The layer to be initialized.

    Returns:
        The covariance over the layer's own patch, or a spatial one over its kernel; for a prospective
        harvest what is known of it. Both carry the same notes, behind those of the measurement.

    Raises:
        UserError: If no layer corresponds or no transfer of the geometries fits: both layers, both
            geometries and the repair are named.
    """
    geometry = _geometry(site, harvest)
    parts, place = correspondence(spec, harvest, site)
    for part in parts:
        _check_sides(harvest, part.harvested, site)
    channels = _channels(spec, harvest, parts, geometry)
    _check_structure(harvest, parts, site, channels)
    patch = PatchGeometry(_channel_count(channels, geometry), geometry.kernel_size)
    notes = (place, *_steps(spec, harvest, parts, patch, channels))
    source = f"{harvest.statistic} of {harvest.origin}"
    measured = [part.harvested.covariance for part in parts if part.harvested.covariance is not None]
    if len(measured) < len(parts):
        return PendingCovariance(source, patch, notes)
    before = [note for cov in measured for note in cov.provenance.notes]
    fitted = [_fitted(spec, cov, patch, channels) for cov in measured]
    found = fitted[0] if len(fitted) == 1 else mixed(fitted, [part.share for part in parts])
    told = replace(
        found.provenance, source=source, notes=(*dict.fromkeys(before), *_refinement(spec), *notes)
    )
    return replace(found, provenance=told)


def _geometry(site: Site, harvest: Harvest) -> Geometry:
    if site.geometry is None:
        raise UserError(
            f"{site.layer}: a {site.kind} layer has no filters that {harvest.origin} could give; "
            "match convolution or linear layers, or use an `init` by name",
            code="MIM-V121",
        )
    return site.geometry


def _check_sides(harvest: Harvest, harvested: Harvested, site: Site) -> None:
    geometry = _geometry(site, harvest)
    if len(harvested.geometry.kernel_size) != len(geometry.kernel_size):
        raise UserError(
            f"{_pair(harvest, harvested, site)}: their kernels have "
            f"{len(harvested.geometry.kernel_size)} and {len(geometry.kernel_size)} sides; "
            "choose layers of the same kind with `kind` or a map",
            code="MIM-V122",
        )


def _check_structure(harvest: Harvest, parts: Sequence[Part], site: Site, channels: Channels) -> None:
    """Refuse what would leave a single number: a spatial covariance over one pixel."""
    geometry = _geometry(site, harvest)
    for part in parts:
        pixels = min(math.prod(part.harvested.geometry.kernel_size), math.prod(geometry.kernel_size))
        if channels == "marginal" and pixels == 1:
            raise UserError(
                f"{_pair(harvest, part.harvested, site)}: their input channels differ, and there is "
                "no kernel to transfer either; match layers of its width or with a kernel above 1×1, "
                "or initialize this layer with an `init`",
                code="MIM-V123",
            )


def _channels(spec: Transferred, harvest: Harvest, parts: Sequence[Part], geometry: Geometry) -> Channels:
    """Return what becomes of input channels; neighbors must agree, so one that cannot decides for both."""
    found = {_channels_of(spec, harvest, part.harvested, geometry) for part in parts}
    if found == {"same", "tile"}:
        return "tile"
    return found.pop() if len(found) == 1 else "marginal"


def _channels_of(spec: Transferred, harvest: Harvest, harvested: Harvested, geometry: Geometry) -> Channels:
    own, source = harvest.patch(harvested).channels, harvested.geometry
    if own == geometry.patch_channels:
        return "same"
    if not harvest.spatial and geometry.groups == source.groups == 1:
        if (source.in_channels, geometry.in_channels) == (_RGB, 1):
            return "grey"
        if (source.in_channels, geometry.in_channels) == (1, _RGB):
            return "rgb"
    # A spatial covariance has no channels to repeat.
    return spec.channels if own > 1 else "marginal"


def _channel_count(channels: Channels, geometry: Geometry) -> int:
    """Return the channels of the carried covariance: all of a filter's, or one for a spatial one."""
    return 1 if channels == "marginal" else geometry.patch_channels


def _steps(
    spec: Transferred, harvest: Harvest, parts: Sequence[Part], patch: PatchGeometry, channels: Channels
) -> tuple[str, ...]:
    """Return notes of what is done to channels and kernels."""
    notes: list[str] = []
    for part in parts:
        before = harvest.patch(part.harvested)
        if channels == "grey":
            notes.append("RGB summed to grey")
        elif channels == "rgb":
            notes.append("grey spread over RGB")
        elif before.channels != patch.channels and channels == "tile":
            notes.append(f"{before.channels} input channels tiled to {patch.channels}")
        elif before.channels != patch.channels:
            notes.append(f"{before.channels} input channels to their mean spatial covariance")
        if before.kernel_size != patch.kernel_size:
            kept = "" if spec.keep == "nothing" else f", {spec.keep} kept"
            corners = " by corners" if spec.align_corners else ""
            notes.append(f"resized {_sides(before)}→{_sides(patch)}{corners}{kept}")
    return tuple(dict.fromkeys(notes))


def _fitted(spec: Transferred, cov: Covariance, patch: PatchGeometry, channels: Channels) -> Covariance:
    """Return a layer's covariance over our patch: refined, then channels, then kernel."""
    if spec.refined_on_transfer:
        if spec.shrink == "auto":
            raise UserError(
                f"covariance `{cov.provenance.source}`: a file has no samples to estimate `shrink` "
                "from; give a number, or shrink where it is harvested",
                code="MIM-V124",
            )
        cov = refined(cov, shrink=spec.shrink, rank=spec.rank)
    if channels == "grey":
        cov = grey_from_rgb(cov)
    elif channels == "rgb":
        cov = rgb_from_grey(cov)
    elif channels == "tile":
        cov = tiled(cov, patch.channels)
    elif cov.patch.channels != patch.channels:
        cov = marginal(cov)
    return resized(cov, patch.kernel_size, align_corners=spec.align_corners, keep=spec.keep)


def _refinement(spec: Transferred) -> tuple[str, ...]:
    """Return notes of the refinement of a file; that of a measurement is among its own notes."""
    if not spec.refined_on_transfer:
        return ()
    notes = [] if spec.shrink == 0.0 else [f"shrunk {spec.shrink:.3g} toward its mean variance"]
    return tuple(notes if spec.rank is None else [*notes, f"rank {spec.rank}"])


def _pair(harvest: Harvest, harvested: Harvested, site: Site) -> str:
    """Name both layers and both geometries, as errors begin."""
    ours = described(site.kind, site.geometry)
    return f"{site.layer} ({ours}) cannot start from {harvested} of {harvest.origin}"


def _sides(patch: PatchGeometry) -> str:
    return "×".join(str(side) for side in patch.kernel_size)
