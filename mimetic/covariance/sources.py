"""From the `covariance:` of a rule to the covariance of a layer's filters.

Other sources, plugins' too, join by `source.register(TheirSpec)`.
"""

import math
from functools import singledispatch

import torch

from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Site
from mimetic.recipe.base import Spec
from mimetic.recipe.covariance import ClosedForm, Identity

_SPATIAL = ("conv", "depthwise_conv")


@singledispatch
def source(spec: Spec, site: Site) -> Covariance:
    """Return the covariance that a `covariance:` section gives the filters of one layer.

    Raises:
        UserError: If the source is unknown, or has nothing to say about such a layer.
    """
    name = getattr(type(spec), "type_name", lambda: type(spec).__name__)()
    message = f"{site.layer}: the covariance `{name}` is registered but nothing computes it; "
    raise UserError(message + "register a function with `mimetic.covariance.source.register`")


@source.register
def _(spec: ClosedForm, site: Site) -> Covariance:
    geometry = _spatial(site)
    width = spec.width.at(site.depth)
    if width < 0.0:
        message = f"{site.layer}: the closed form's width is {width:.4g} at depth {site.depth:.3g}; "
        raise UserError(message + "choose start, linear and quadratic so that it stays at or above 0")
    return closed_form(
        geometry.kernel_size, width, padding=spec.padding, convention=spec.convention, psd=spec.psd
    )


@source.register
def _(spec: Identity, site: Site) -> Covariance:
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
