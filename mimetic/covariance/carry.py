"""Carry a harvest to a layer of another network (arXiv 2210.03651, extended).

Three questions are answered from geometries alone, so a plan can be printed before anything is trained: which
layers of the harvest correspond to ours, by depth fraction, by name or by a map; how their input channels
become ours; and how their kernels do. Each answer leaves a note for the plan's reader. Layers are brought to
our patch first and mixed then, so neighbors may have different geometries. A fit comes last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from mimetic.config.suggest import listed, nearest
from mimetic.covariance.algebra import mixed
from mimetic.covariance.config import Transferred
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.formula import fitted
from mimetic.covariance.harvest import Harvest, Harvested, described
from mimetic.covariance.shrinkage import refined
from mimetic.covariance.transfer import (
    SYMMETRIZED,
    depth_position,
    grey_from_rgb,
    marginal,
    resize_text,
    resized,
    rgb_from_grey,
    smoothed_weights,
    symmetrized,
    tiled,
)
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


class WeightedLayer(NamedTuple):
    """A layer of the harvest and its share in what ours gets."""

    harvested: Harvested
    share: float


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
    geometry = site.geometry
    if geometry is None:
        raise UserError(
            f"{site.layer}: a {site.kind} layer has no filters that {harvest.origin} could give; "
            "match convolution or linear layers, or use an `init` by name",
            code="MIM-V121",
        )
    if spec.fit is not None and math.prod(geometry.kernel_size) == 1:
        raise UserError(
            f"{site.layer} ({described(site.kind, geometry)}): `fit` describes filters over a kernel, and "
            "this layer has none of more than one pixel; match other layers, or leave `fit` out",
            code="MIM-V126",
        )
    # 1. Which layers correspond, and what becomes of channels and kernels, follows from geometries alone.
    parts, place = correspondence(spec, harvest, site)
    channels = _channels(spec, harvest, parts, geometry)
    for part in parts:
        _check(part.harvested, harvest, site, geometry, channels)
    kernels = {part.harvested.geometry.kernel_size for part in parts}
    # A formula is fitted where it was learned: interpolation would widen narrow filters. It has any size.
    kernel = kernels.pop() if spec.fit is not None and len(kernels) == 1 else geometry.kernel_size
    patch = PatchGeometry(1 if channels == "marginal" else geometry.patch_channels, kernel)
    notes = (place, *_steps(spec, harvest, parts, patch, channels))
    source = f"{harvest.statistic} of {harvest.origin}"
    # 2. That is all there is before the network is trained.
    measured = [part.harvested.covariance for part in parts if part.harvested.covariance is not None]
    if len(measured) < len(parts):
        fit = () if spec.fit is None else (f"{spec.fit.type_name()} fitted to it",)
        return PendingCovariance(source, replace(patch, kernel_size=geometry.kernel_size), (*notes, *fit))
    # 3. Covariances are brought to one patch, then mixed; a formula is fitted last.
    before = [note for cov in measured for note in cov.provenance.notes]
    ours = [_carried(spec, cov, patch, channels) for cov in measured]
    found = ours[0] if len(ours) == 1 else mixed(ours, [part.share for part in parts])
    notes = (*dict.fromkeys(before), *_refinement(spec), *notes)
    found = replace(found, provenance=replace(found.provenance, source=source, notes=notes))
    if spec.fit is None:
        return found
    return fitted(spec.fit, found, kernel_size=geometry.kernel_size, keep=spec.preserve).covariance


# ------------------------------------------------------------------------------------------- which layers
def correspondence(spec: Transferred, harvest: Harvest, site: Site) -> tuple[tuple[WeightedLayer, ...], str]:
    """Return the layers that correspond to ours with shares that sum to 1, and a note with their names.

    By depth they are those of `spec.kind` (our layer's own kind unless given), placed by their order
    among each other: the first has depth 0, the last depth 1.

    Raises:
        UserError: If there is none; names our layer and what the harvest has.
    """
    if spec.layers == "depth":
        return _by_depth(spec, harvest, site)
    # The layer of the same name, or that the map names.
    ours, names = described(site.kind, site.geometry), spec.layers
    if isinstance(names, dict) and site.layer not in names:
        raise UserError(
            f"{site.layer}: the map `layers` names no layer of {harvest.origin} for this {ours}; "
            f"add `{site.layer}: <its layer>`, or use `layers: depth`",
            code="MIM-V132",
        )
    name = names[site.layer] if isinstance(names, dict) else site.layer
    found = harvest.layer(name)
    if found is None:
        known = [harvested.layer for harvested in harvest.layers]
        close = nearest(name, known)
        hint = "" if close is None else f"did you mean `{close}`? "
        raise UserError(
            f"{site.layer}: {harvest.origin} has no measured layer `{name}` for this {ours}; "
            f"{hint}it has {listed(known, 8)}; use `layers: depth`, or a map from our names to its",
            code="MIM-V133",
        )
    if spec.kind is not None and found.kind != spec.kind:
        raise UserError(
            f"{site.layer}: {found} of {harvest.origin} corresponds to it, and `kind` is "
            f"`{spec.kind}`; leave `kind` out, or name another layer",
            code="MIM-V131",
        )
    which = "the same layer" if name == site.layer else name
    return (WeightedLayer(found, 1.0),), f"from {which} of {harvest.origin}"


def _by_depth(spec: Transferred, harvest: Harvest, site: Site) -> tuple[tuple[WeightedLayer, ...], str]:
    kind = site.kind if spec.kind is None else spec.kind
    candidates = [harvested for harvested in harvest.layers if harvested.kind == kind]
    if not candidates:
        firsts = {harvested.kind: str(harvested) for harvested in reversed(harvest.layers)}
        kinds = list(dict.fromkeys(harvested.kind for harvested in harvest.layers))
        raise UserError(
            f"{site.layer}: {harvest.origin} has no layer of kind `{kind}` for this "
            f"{described(site.kind, site.geometry)}; it has {', '.join(firsts[k] for k in kinds)} and the "
            f"like; choose one of its kinds, e.g. `kind: {kinds[0]}`, or match other layers",
            code="MIM-V134",
        )
    # The place of our depth among their layers: on one, or between two.
    first, last = spec.depths
    depth = first + (last - first) * site.depth
    lower, share = depth_position(depth, len(candidates))
    if spec.depth_matching == "nearest":
        lower, share = lower + round(share), 0.0
    # Shares of one layer, of two neighbors, or of all under a Gaussian.
    if spec.smooth > 0.0:
        weights = smoothed_weights(lower + share, len(candidates), spec.smooth)
    else:
        weights = {lower: 1.0 - share, **({lower + 1: share} if share > 0.0 else {})}
    parts = tuple(WeightedLayer(candidates[index], weight) for index, weight in weights.items())
    names = [part.harvested.layer for part in parts]
    if len(names) == 1:
        where = f"at {names[0]}"
    elif spec.smooth == 0.0:
        where = f"between {names[0]} and {names[1]}"
    else:
        where = f"averaged from {names[0]} to {names[-1]}"
    return parts, f"depth {depth:.2f} {where} of {harvest.origin}"


# ------------------------------------------------------------------------------------------- geometries
def _check(
    harvested: Harvested, harvest: Harvest, site: Site, geometry: Geometry, channels: Channels
) -> None:
    """Refuse kernels of other dimensions, and what would leave a single number."""
    theirs, ours = harvested.geometry.kernel_size, geometry.kernel_size
    pair = (
        f"{site.layer} ({described(site.kind, geometry)}) cannot start from {harvested} of {harvest.origin}"
    )
    if len(theirs) != len(ours):
        raise UserError(
            f"{pair}: their kernels have {len(theirs)} and {len(ours)} sides; "
            "choose layers of the same kind with `kind` or a map",
            code="MIM-V122",
        )
    if channels == "marginal" and min(math.prod(theirs), math.prod(ours)) == 1:
        raise UserError(
            f"{pair}: their input channels differ, and there is no kernel to transfer either; match "
            "layers of its width or with a kernel above 1×1, or initialize this layer with an `init`",
            code="MIM-V123",
        )


def _channels(
    spec: Transferred, harvest: Harvest, parts: Sequence[WeightedLayer], geometry: Geometry
) -> Channels:
    """Return what becomes of input channels; neighbors must agree, so one that cannot decides for both."""
    if spec.fit is not None:
        return "marginal"
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


def _steps(
    spec: Transferred,
    harvest: Harvest,
    parts: Sequence[WeightedLayer],
    patch: PatchGeometry,
    channels: Channels,
) -> tuple[str, ...]:
    """Return notes of what is done to channels and kernels."""
    notes: list[str] = [SYMMETRIZED] if spec.symmetrize else []
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
            how = resize_text(
                before.kernel_size, patch.kernel_size, keep=spec.preserve, align_corners=spec.align_corners
            )
            notes.append(how)
    return tuple(dict.fromkeys(notes))


def _carried(spec: Transferred, cov: Covariance, patch: PatchGeometry, channels: Channels) -> Covariance:
    """Return a layer's covariance over our patch: refined, then channels, then kernel."""
    if spec.refined_on_transfer:
        if spec.shrink == "auto":
            raise UserError(
                f"covariance `{cov.provenance.source}`: a file has no samples to estimate `shrink` "
                "from; give a number, or shrink where it is harvested",
                code="MIM-V124",
            )
        cov = refined(cov, shrink=spec.shrink, rank=spec.rank)
    if spec.symmetrize:
        cov = symmetrized(cov)
    if channels == "grey":
        cov = grey_from_rgb(cov)
    elif channels == "rgb":
        cov = rgb_from_grey(cov)
    elif channels == "tile":
        cov = tiled(cov, patch.channels)
    elif cov.patch.channels != patch.channels:
        cov = marginal(cov)
    return resized(cov, patch.kernel_size, align_corners=spec.align_corners, keep=spec.preserve)


def _refinement(spec: Transferred) -> tuple[str, ...]:
    """Return notes of the refinement of a file; that of a measurement is among its own notes."""
    if not spec.refined_on_transfer:
        return ()
    notes = [] if spec.shrink == 0.0 else [f"shrunk {spec.shrink:.3g} toward its mean variance"]
    return tuple(notes if spec.rank is None else [*notes, f"rank {spec.rank}"])
