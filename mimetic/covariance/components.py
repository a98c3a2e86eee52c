"""Covariance sources: from the `covariance:` of a rule to the covariance of one layer's filters."""

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from mimetic.config.registry import implementation
from mimetic.covariance.algebra import mixed
from mimetic.covariance.atlas import find_entry
from mimetic.covariance.carry import PendingCovariance, transfer_covariance
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.config import (
    AtlasEntry,
    ClosedForm,
    CovarianceFile,
    CovarianceSource,
    Identity,
    Measured,
    Mixture,
    Patches,
)
from mimetic.covariance.context import Context
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.harvest import Harvest, described, harvest_key
from mimetic.covariance.store import load_harvest
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Site, shape_text

_SPATIAL = ("conv", "depthwise_conv")


def covariance_of(
    spec: CovarianceSource, site: Site, context: Context | None = None
) -> Covariance | PendingCovariance:
    """Return the covariance that a `covariance:` section gives the filters of one layer.

    Args:
        spec: The section.
        site: The layer.
        context: What trained networks and data gave, or will give.

    Returns:
        The covariance, or what is known of it before its network is trained.

    Raises:
        UserError: If the source does not apply to such a layer.
    """
    context = Context() if context is None else context
    found: Covariance | PendingCovariance = implementation(spec)(spec, site, context)
    return found


def closed_form_of_layer(spec: ClosedForm, site: Site, _context: Context) -> Covariance:
    """Return the closed form for a layer's kernel and depth."""
    geometry = spatial_geometry(site, "closed_form")
    width = spec.width.at(site.depth)
    if width < 0.0:
        raise UserError(
            f"{site.layer}: the closed form's width is {width:.4g} at depth {site.depth:.3g}; "
            "choose start, linear and quadratic so that it is at least 0",
            code="MIM-V001",
        )
    return closed_form(
        geometry.kernel_size, width, padding=spec.padding, convention=spec.convention, psd=spec.psd
    )


def identity(spec: Identity, site: Site, _context: Context) -> Covariance:
    """Return variance·I, over one input channel where the layer has a kernel."""
    if site.geometry is None:
        raise UserError(
            f"{site.layer}: a {site.kind} layer has no filters to draw from a covariance; "
            "match convolution or linear layers, or use an `init` by name",
            code="MIM-V002",
        )
    kernel = site.geometry.kernel_size
    deviation, size = math.sqrt(spec.variance), math.prod(kernel)
    root_DD = deviation * torch.eye(size, dtype=torch.float64)
    provenance = Provenance(
        "identity", rank=size, smallest_eigenvalue=spec.variance, largest_eigenvalue=spec.variance
    )
    return Covariance(root_DD, PatchGeometry(1, kernel), provenance)


def measured_on_network(spec: Measured, site: Site, context: Context) -> Covariance | PendingCovariance:
    """Return what was, or will be, measured on a trained network, transferred to the layer."""
    return transfer_covariance(spec, _harvest(spec, site, context), site)


def from_file(spec: CovarianceFile, site: Site, context: Context) -> Covariance | PendingCovariance:
    """Return a covariance file's covariances, transferred to the layer."""
    found = context.harvests.get(harvest_key(spec))
    harvest = found if isinstance(found, Harvest) else _stored(Path(spec.path))
    return transfer_covariance(spec, harvest, site)


def from_atlas(spec: AtlasEntry, site: Site, _context: Context) -> Covariance | PendingCovariance:
    """Return the covariances of an entry of the atlas, transferred to the layer."""
    found = replace(_stored(find_entry(spec.name).path), origin=f"atlas {spec.name}")
    return transfer_covariance(spec, found, site)


def patches_of_images(spec: Patches, site: Site, context: Context) -> Covariance | PendingCovariance:
    """Return the covariance of the training images' patches, for the first layer only."""
    harvest = _harvest(spec, site, context)
    first = harvest.layers[0]
    if (first.layer, first.geometry) != (site.layer, site.geometry):
        raise UserError(
            f"{site.layer} ({described(site.kind, site.geometry)}): `patches` come from the images, "
            f"which only the first layer, {first}, sees; match that layer, or use `filters`, `nfm` or `agop`",
            code="MIM-V003",
        )
    if first.covariance is None:
        return PendingCovariance(f"patches of {harvest.origin}", harvest.patch(first))
    return first.covariance


def mixture(spec: Mixture, site: Site, context: Context) -> Covariance | PendingCovariance:
    """Return Σ_i w_i·Σ_i / tr Σ_i with weights w_i that sum to 1."""
    parts = [covariance_of(part.covariance, site, context) for part in spec.components]
    if len({part.patch for part in parts}) > 1:
        pairs = zip(spec.components, parts, strict=True)
        patches = ", ".join(f"`{part.covariance.type_name()}` {found.patch}" for part, found in pairs)
        raise UserError(
            f"{site.layer}: the components of a mixture have different patches (channels × kernel): "
            f"{patches}; mix either covariances of all channels or spatial ones",
            code="MIM-V004",
        )
    # Weights are relative; each covariance is scaled to trace 1 first.
    total = sum(part.weight for part in spec.components)
    shares = [part.weight / total for part in spec.components]
    measured = [part for part in parts if isinstance(part, Covariance)]
    if len(measured) < len(parts):
        return _pending_mixture(parts, shares)
    zero = [part.provenance.source for part in measured if part.trace == 0.0]
    if zero:
        raise UserError(
            f"{site.layer}: the covariance `{zero[0]}` is zero and cannot be normalized for a mixture; "
            "check what it was measured on, or leave it out",
            code="MIM-V005",
        )
    return mixed([part.scale_by(part.trace**-0.5) for part in measured], shares)


def _pending_mixture(parts: list[Covariance | PendingCovariance], shares: list[float]) -> PendingCovariance:
    pending = [part for part in parts if isinstance(part, PendingCovariance)]
    names = (p.source if isinstance(p, PendingCovariance) else p.provenance.source for p in parts)
    terms = " + ".join(f"{share:.2g} {name}" for share, name in zip(shares, names, strict=True))
    notes = tuple(note for part in pending for note in part.notes)
    return PendingCovariance(f"a mixture, {terms}", parts[0].patch, notes)


def _harvest(spec: CovarianceSource, site: Site, context: Context) -> Harvest:
    """Return the harvest of a section.

    Raises:
        UserError: If there is none, with the way to get one.
    """
    found = context.harvests.get(harvest_key(spec))
    if isinstance(found, Harvest):
        return found
    what = "a trained network" if hasattr(spec, "from_") else "training images"
    raise UserError(
        f"{site.layer}: the covariance `{spec.type_name()}` needs {what}, and none is available here; "
        "`mimetic run` trains and harvests what a recipe needs; in Python, harvest it with "
        "`mimetic.harvest(…, path=FILE)` and use `{type: file, path: FILE}`",
        code="MIM-V006",
    )


def _stored(path: Path) -> Harvest:
    """Return the harvest in a file, read once for all layers of a plan."""
    state = path.stat() if path.is_file() else None
    return _read(path, None if state is None else (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=4)
def _read(path: Path, _time_and_size: tuple[int, int] | None) -> Harvest:
    return replace(load_harvest(path), origin=path.name)


def spatial_geometry(site: Site, source: str) -> Geometry:
    """Return the geometry of a layer with spatial filters, which a source describes.

    Raises:
        UserError: If it has none, with the reason.
    """
    geometry = site.geometry
    if site.kind in _SPATIAL and geometry is not None and math.prod(geometry.kernel_size) > 1:
        return geometry
    if geometry is not None and geometry.transposed and geometry.kernel_size:
        reason = "is a transposed convolution, whose filters interleave over the strides"
    elif geometry is not None and geometry.kernel_size:
        reason = f"has a kernel of {shape_text(geometry.kernel_size)}, a single pixel"
    else:
        reason = f"is a {site.kind} layer, without a kernel"
    raise UserError(
        f"{site.layer}: the covariance `{source}` describes spatial filters, but this layer {reason}; "
        "match `kind: depthwise_conv` or `kind: conv`, or use `covariance: identity`",
        code="MIM-V007",
    )
