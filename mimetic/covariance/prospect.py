"""What can be measured of a network, told from its graph alone."""

from collections.abc import Collection

from mimetic.config.registry import Component
from mimetic.covariance.config import Agop, Carried, Filters, Patches
from mimetic.covariance.harvest import Harvest, blank
from mimetic.covariance.layout import stored_shape
from mimetic.errors import UserError
from mimetic.graph.site import Graph, Site

KINDS = ("conv", "depthwise_conv", "pointwise_conv", "linear")
"""Kinds of layers whose weights are filters over patches."""

_CALLED = {"Conv1d", "Conv2d", "Conv3d", "Linear"}
_LENDING = "NonDynamicallyQuantizableLinear"
"""Attention's output projection: its weight is used, but the layer is never called."""


def prospect(spec: Component, graph: Graph, origin: str, *, kinds: Collection[str] | None = None) -> Harvest:
    """Return what a network will give once it is trained: layers and geometries without covariances.

    Args:
        spec: A `filters`, `nfm`, `agop` or `patches` section.
        graph: Sites of the network, on any device.
        origin: The network, for messages and plans.
        kinds: Kinds of layers wanted; all unless given.

    Raises:
        UserError: If the network has no layer of which that could be measured.
    """
    sites = harvestable(spec, graph, origin, kinds=kinds)
    return Harvest(origin, spec.type_name(), tuple(blank(site) for site in sites))


def harvestable(
    spec: Component, graph: Graph, origin: str, *, kinds: Collection[str] | None = None
) -> tuple[Site, ...]:
    """Return the sites a section can be measured at, in execution order.

    Raises:
        UserError: If there is none.
    """
    if kinds is None and isinstance(spec, Carried) and spec.kind is not None:
        kinds = (spec.kind,)
    wanted = KINDS if kinds is None else kinds
    found = tuple(site for site in graph.sites if site.kind in wanted and _fits(spec, site))
    if isinstance(spec, Patches):
        found = tuple(site for site in found if site.calls != 0)[:1]
    if found:
        return found
    present = sorted({site.kind for site in graph.sites})
    what = "convolutions with a kernel above 1×1" if isinstance(spec, Filters | Patches) else "filters"
    message = f"{origin}: `{spec.type_name()}` is measured at {what}, and this network has none "
    if kinds is not None:
        message += f"of kind {_listing(kinds)} "
    message += f"(its layers: {_listing(present)}); choose another "
    raise UserError(message + ("network, or `nfm`" if isinstance(spec, Filters) else "network or statistic"))


def _fits(spec: Component, site: Site) -> bool:
    """Tell whether a section can be measured at a site."""
    geometry = site.geometry
    weight = next((p for p in site.parameters if p.local == "weight"), None)
    if geometry is None or weight is None or weight.shape != stored_shape(geometry):
        return False
    pixels = any(side > 1 for side in geometry.kernel_size)
    if isinstance(spec, Filters):
        return pixels
    if isinstance(spec, Patches):
        return pixels and len(geometry.kernel_size) == 2 and geometry.groups == 1  # noqa: PLR2004
    return gradients_known(site) if isinstance(spec, Agop) else True


def gradients_known(site: Site) -> bool:
    """Tell whether gradients can be taken at a site: a convolution or linear layer the forward calls."""
    return site.calls != 0 and bool(_CALLED.intersection(site.classes)) and _LENDING not in site.classes


def _listing(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
