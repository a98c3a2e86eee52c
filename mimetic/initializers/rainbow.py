"""`rainbow`: one layer's part in the resampling of a network, checked before anything is trained.

The resampling itself runs through the whole network, layer by layer on images (`resample`). Here each layer
is checked, and described in the plan.
"""

from collections.abc import Collection, Mapping

from torch import nn

from mimetic.config.suggest import listed
from mimetic.covariance.context import Context
from mimetic.covariance.harvest import described, harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.config import Rainbow
from mimetic.initializers.resample import Pair, resample
from mimetic.initializers.resolved import (
    NetworkInit,
    NetworkStreams,
    ResolvedInit,
    not_trained,
    source_network,
)

DENSE = ("conv", "pointwise_conv", "linear")
"""Kinds of layers each of whose filters sees all channels: these can be rotated."""


def rainbow(spec: Rainbow, site: Site, context: Context) -> ResolvedInit:
    """Resolve a layer's part in the resampling of a trained network.

    Raises:
        UserError: If no network is available, or the layer cannot be resampled from it: both layers, both
            geometries and the repair are named.
    """
    hint = "; in Python, `mimetic.resample(model, trained, images)` takes one of your own"
    network = source_network(spec, site, context, hint=hint)
    theirs = _counterpart(network, site)
    _check_claim(site, context.parameters)
    version = {"harvest": "pending"} if network.digest is None else {"digest": network.digest}
    return ResolvedInit(
        name="rainbow",
        arguments={**spec.model_dump(by_alias=True, exclude_none=True), **version},
        sample=lambda _streams, _layer: {},
        notes=(_note(network, site, theirs),),
        network_init=NetworkInit(harvest_key(spec), lambda *arguments: _fill(spec, network, *arguments)),
    )


def _fill(
    spec: Rainbow, network: TrainedNetwork, new: nn.Module, layers: Collection[str], streams: NetworkStreams
) -> Mapping[str, str]:
    """Resample the claimed layers of a network; return by layer how well it was aligned."""
    if network.model is None or network.images_NCHW is None:
        raise not_trained(network.origin, "there is nothing to resample", code="MIM-I061")
    pair = Pair(trained=network.model, new=new, images_NCHW=network.images_NCHW, origin=network.origin)
    return {done.layer: str(done) for done in resample(pair, spec, layers, streams)}


def _counterpart(network: TrainedNetwork, site: Site) -> Site:
    """Return the trained network's layer of the same name.

    Raises:
        UserError: If there is none, or ours cannot be resampled from it.
    """
    what = f"{site.layer} ({described(site.kind, site.geometry)})"
    if site.kind != "norm" and site.kind not in DENSE:
        raise UserError(
            f"{what}: `rainbow` rotates the channels that filters see, and a {site.kind} layer has none to "
            "rotate; match it by another rule above",
            code="MIM-I062",
        )
    if site.geometry is not None and site.geometry.groups > 1:
        raise UserError(
            f"{what}: its {site.geometry.groups} groups of channels cannot be rotated into one another; "
            "match it by another rule above, e.g. `covariance: {type: nfm, …}`",
            code="MIM-I063",
        )
    theirs = next((other for other in network.graph.sites if other.layer == site.layer), None)
    if theirs is None:
        layers = listed(other.layer for other in network.graph.sites)
        raise UserError(
            f"{what}: {network.origin} has no such layer, but {layers}; resample a network of the same "
            "layers; only widths may differ",
            code="MIM-I064",
        )
    difference = _difference(network, site, theirs)
    if difference is not None:
        raise UserError(
            f"{what}: in {network.origin} it is {described(theirs.kind, theirs.geometry)}, {difference}; "
            "resample a network of the same layers; only widths may differ",
            code="MIM-I065",
        )
    return theirs


def _difference(network: TrainedNetwork, site: Site, theirs: Site) -> str | None:
    """Describe how a layer differs beyond its width; None if it does not."""
    if {p.local for p in site.parameters} != {p.local for p in theirs.parameters}:
        return f"with {' and '.join(f'`{p.local}`' for p in theirs.parameters)}"
    ours, its = site.geometry, theirs.geometry
    if ours is None or its is None:
        return None if site.kind == theirs.kind else "another kind of layer"
    if (ours.kernel_size, ours.stride) != (its.kernel_size, its.stride):
        return "with another kernel or stride"
    dense = [other.layer for other in network.graph.sites if other.kind in DENSE]
    if site.layer == dense[0] and ours.in_channels != its.in_channels:
        return "which sees other images"
    if site.layer == dense[-1] and ours.out_channels != its.out_channels:
        return "and the last layer is copied, which needs the same outputs (or another rule above)"
    return None


def _check_claim(site: Site, names: tuple[str, ...]) -> None:
    left = [parameter.local for parameter in site.parameters if parameter.local not in names]
    if left:
        omitted = " and ".join(f"`{name}`" for name in left)
        raise UserError(
            f"{site.layer}: `rainbow` fills a layer's parameters together, and the rule omits {omitted}; "
            "match `param: '.*'`",
            code="MIM-I066",
        )
    if site.calls is not None and site.calls > 1:
        raise UserError(
            f"{site.layer}: it is called {site.calls} times in a forward, so its inputs have no single "
            "basis; match it by another rule above",
            code="MIM-I067",
        )


def _note(network: TrainedNetwork, site: Site, theirs: Site) -> str:
    if site.geometry is None or theirs.geometry is None:
        return f"statistics measured behind the resampled layers of {network.origin}"
    dense = [other.layer for other in network.graph.sites if other.kind in DENSE]
    if site.layer == dense[-1]:
        return f"copied from {network.origin}, in the new channels' basis"
    count, ours = theirs.geometry.out_channels, site.geometry.out_channels
    return f"{ours} filters resampled from {count} of {network.origin}"
