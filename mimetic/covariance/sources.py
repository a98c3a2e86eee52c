"""From the `covariance:` of a rule to the covariance of a layer's filters.

Other sources, plugins' too, join by `source.register(TheirSpec)`.
"""

import math
from dataclasses import replace
from functools import lru_cache, singledispatch
from pathlib import Path

import torch

from mimetic.config.registry import Component
from mimetic.covariance.algebra import mixed
from mimetic.covariance.carry import PendingCovariance, carried
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.config import ClosedForm, CovarianceFile, Identity, Measured, Mixture, Patches
from mimetic.covariance.context import NO_HARVESTS, Harvests
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.harvest import Harvest, described, harvest_key
from mimetic.covariance.store import load_harvest
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Site

_SPATIAL = ("conv", "depthwise_conv")


@singledispatch
def source(spec: Component, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance | PendingCovariance:  # noqa: ARG001
    """Return the covariance that a `covariance:` section gives the filters of one layer.

    Args:
        spec: The section.
        site: The layer.
        harvests: What trained networks and data gave, or will give, by `harvest_key`; sources that need
            neither ignore it.

    Returns:
        The covariance; what is known of it where its network is not trained yet.

    Raises:
        UserError: If the source is unknown, or has nothing to say about such a layer.
    """
    name = getattr(type(spec), "type_name", lambda: type(spec).__name__)()
    message = f"{site.layer}: the covariance `{name}` is registered but nothing computes it; "
    raise UserError(message + "register a function with `mimetic.covariance.source.register`")


@source.register
def _(spec: ClosedForm, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance:  # noqa: ARG001
    geometry = _spatial(site)
    width = spec.width.at(site.depth)
    if width < 0.0:
        message = f"{site.layer}: the closed form's width is {width:.4g} at depth {site.depth:.3g}; "
        raise UserError(message + "choose start, linear and quadratic so that it stays at or above 0")
    return closed_form(
        geometry.kernel_size, width, padding=spec.padding, convention=spec.convention, psd=spec.psd
    )


@source.register
def _(spec: Identity, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance:  # noqa: ARG001
    if site.geometry is None:
        message = f"{site.layer}: a {site.kind} layer has no filters, so no covariance of them; "
        raise UserError(message + "match convolution or linear layers, or use an `init` by name")
    kernel = site.geometry.kernel_size
    size = math.prod(kernel)
    told = Provenance(
        "identity", rank=size, smallest_eigenvalue=spec.variance, largest_eigenvalue=spec.variance
    )
    root_DD = math.sqrt(spec.variance) * torch.eye(size, dtype=torch.float64)
    return Covariance(root_DD, PatchGeometry(1, kernel), told)


@source.register
def _(spec: Measured, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance | PendingCovariance:
    return carried(spec, _harvest(spec, site, harvests), site)


@source.register
def _(spec: CovarianceFile, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance | PendingCovariance:
    found = harvests.get(harvest_key(spec))
    return carried(spec, found if isinstance(found, Harvest) else _file(Path(spec.path)), site)


@source.register
def _(spec: Patches, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance | PendingCovariance:
    harvest = _harvest(spec, site, harvests)
    first = harvest.layers[0]
    if (first.layer, first.geometry) != (site.layer, site.geometry):
        message = f"{site.layer} ({described(site.kind, site.geometry)}): `patches` are those of the images, "
        message += f"and only the first layer, {first}, sees these; "
        raise UserError(message + "match that layer, or use `filters`, `nfm` or `agop` here")
    if first.covariance is None:
        return PendingCovariance(f"patches of {harvest.origin}", harvest.patch(first))
    return first.covariance


@source.register
def _(spec: Mixture, site: Site, harvests: Harvests = NO_HARVESTS) -> Covariance | PendingCovariance:
    parts = [source(part.covariance, site, harvests) for part in spec.parts]
    patches = {part.patch for part in parts}
    if len(patches) > 1:
        shown = ", ".join(
            f"`{part.covariance.type_name()}` {found.patch}"
            for part, found in zip(spec.parts, parts, strict=True)
        )
        message = f"{site.layer}: the parts of a mixture are over different patches (channels × kernel): "
        raise UserError(message + f"{shown}; mix covariances of all channels, or spatial ones, alone")
    total = sum(part.share for part in spec.parts)
    shares = [part.share / total for part in spec.parts]
    measured = [part for part in parts if isinstance(part, Covariance)]
    if len(measured) < len(parts):
        notes = tuple(note for part in parts if isinstance(part, PendingCovariance) for note in part.notes)
        named = (
            part.source if isinstance(part, PendingCovariance) else part.provenance.source for part in parts
        )
        said = " + ".join(f"{share:.2g} {name}" for share, name in zip(shares, named, strict=True))
        return PendingCovariance(f"a mixture, {said}", parts[0].patch, notes)
    empty = [part.provenance.source for part in measured if part.trace == 0.0]
    if empty:
        message = f"{site.layer}: the covariance `{empty[0]}` is zero, so a mixture cannot weigh it; "
        raise UserError(message + "check what it was measured on, or leave it out")
    return mixed([part.scale_by(part.trace**-0.5) for part in measured], shares)


def _harvest(spec: Component, site: Site, harvests: Harvests) -> Harvest:
    """Return the harvest of a section, or say how one comes about."""
    found = harvests.get(harvest_key(spec))
    if isinstance(found, Harvest):
        return found
    what = "training images" if isinstance(spec, Patches) else "a trained network"
    message = f"{site.layer}: the covariance `{spec.type_name()}` needs {what}, and none is at hand here; "
    message += "`mimetic run` trains and harvests what a recipe asks for; in Python, harvest it with "
    raise UserError(message + "`mimetic.harvest(…, path=FILE)` and use `{type: file, path: FILE}`")


def _file(path: Path) -> Harvest:
    """Return the harvest in a file; each layer of a plan asks for it, and it is read once."""
    if not path.is_file():
        return load_harvest(path)  # says what is wrong
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _size: int) -> Harvest:
    return replace(load_harvest(path), origin=path.name)


def _spatial(site: Site) -> Geometry:
    """Return the geometry of a layer with spatial filters, or say why it has none."""
    geometry = site.geometry
    if site.kind in _SPATIAL and geometry is not None and math.prod(geometry.kernel_size) > 1:
        return geometry
    repair = "match `kind: depthwise_conv` or `kind: conv`, or use `covariance: identity`"
    if geometry is not None and geometry.transposed and geometry.kernel_size:
        what = "is a transposed convolution, whose filters interleave over the strides"
    elif geometry is not None and geometry.kernel_size:
        what = f"has a kernel of {'×'.join(map(str, geometry.kernel_size))}, a single pixel"
    else:
        what = f"is a {site.kind} layer, without a kernel"
    raise UserError(
        f"{site.layer}: the closed form describes spatial filters, but this layer {what}; {repair}"
    )
