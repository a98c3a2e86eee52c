"""`rainbow`: the part of one layer in the resampling of a network, checked before anything is trained.

The resampling itself goes through the whole network, layer by layer on images (`resample`); here each layer
says whether it can take part, and what the plan should say of it.
"""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from mimetic.covariance.context import Harvests
from mimetic.covariance.harvest import described, harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import RunError, UserError
from mimetic.graph.site import Site
from mimetic.initializers.config import Rainbow
from mimetic.initializers.draw import NetworkInit, ResolvedInit, Streams
from mimetic.initializers.resample import Pair, resample

DENSE = ("conv", "pointwise_conv", "linear")
"""Kinds of layers each of whose filters sees all channels, so that these can be rotated."""


def rainbow(spec: Rainbow, site: Site, names: tuple[str, ...], harvests: Harvests) -> ResolvedInit:
    """Return a layer's part in the resampling of a trained network; samples nothing by itself.

    Args:
        spec: The section.
        site: The layer.
        names: Local names of the parameters the rule claims there: all of them, for they belong together.
        harvests: The trained network and its images, by `harvest_key`.

    Raises:
        UserError: If there is no network at hand, or the layer is none that can be resampled from it: both
            layers, both geometries and the repair are named.
    """
    network = harvests.get(harvest_key(spec))
    if not isinstance(network, TrainedNetwork):
        message = f"{site.layer}: `rainbow` needs a trained network and images, and none are at hand here; "
        message += "`mimetic run` trains what a recipe asks for; in Python, "
        raise UserError(message + "`mimetic.resample(model, trained, images)` takes one of your own")
    theirs = _counterpart(network, site)
    _check_claim(site, names)
    arguments = spec.model_dump(by_alias=True, exclude_none=True)
    if network.digest is None:
        arguments["harvest"] = "pending"
    else:
        arguments["digest"] = network.digest
    return ResolvedInit(
        name="rainbow",
        arguments=arguments,
        sample=_nothing,
        notes=(_note(network, site, theirs),),
        joint=NetworkInit(harvest_key(spec), lambda *given: _fill(spec, network, *given)),
    )


def _nothing(_streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
    return {}


def _fill(
    spec: Rainbow, network: TrainedNetwork, new: nn.Module, layers: Collection[str], streams: Streams
) -> Mapping[str, str]:
    """Resample the claimed layers of a network, and say how well each was aligned."""
    if network.model is None or network.images_NCHW is None:
        message = f"{network.origin} is not trained yet, so there is nothing to resample; train it and "
        raise RunError(message + "resolve the plan again (`mimetic run` does)")
    pair = Pair(trained=network.model, new=new, images_NCHW=network.images_NCHW, origin=network.origin)
    return {done.layer: str(done) for done in resample(pair, spec, layers, streams)}


def _counterpart(network: TrainedNetwork, site: Site) -> Site:
    """Return the trained network's layer of the same name, of which ours can be resampled."""
    what = f"{site.layer} ({described(site.kind, site.geometry)})"
    if site.kind != "norm" and site.kind not in DENSE:
        message = (
            f"{what}: `rainbow` rotates the channels that filters see, and a {site.kind} layer has none "
        )
        raise UserError(message + "to rotate; match it by another rule above")
    if site.geometry is not None and site.geometry.groups > 1:
        message = (
            f"{what}: its {site.geometry.groups} groups of channels cannot be rotated into one another; "
        )
        raise UserError(message + "match it by another rule above, e.g. `covariance: {type: nfm, …}`")
    theirs = next((other for other in network.graph.sites if other.layer == site.layer), None)
    if theirs is None:
        layers = ", ".join(f"`{other.layer}`" for other in network.graph.sites)
        message = f"{what}: {network.origin} has no such layer, but {layers}; "
        raise UserError(message + "resample a network of the same layers; only widths may differ")
    wrong = _difference(network, site, theirs)
    if wrong is not None:
        message = f"{what}: in {network.origin} it is {described(theirs.kind, theirs.geometry)}, {wrong}; "
        raise UserError(message + "resample a network of the same layers; only widths may differ")
    return theirs


def _difference(network: TrainedNetwork, site: Site, theirs: Site) -> str | None:
    """Return in what a layer differs beyond its width, in words."""
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
        return "and the last layer is carried over, which needs the same outputs (or another rule above)"
    return None


def _check_claim(site: Site, names: tuple[str, ...]) -> None:
    left = [parameter.local for parameter in site.parameters if parameter.local not in names]
    if left:
        message = f"{site.layer}: `rainbow` fills a layer's parameters together, and the rule leaves out "
        raise UserError(message + f"{' and '.join(f'`{name}`' for name in left)}; match `param: '.*'`")
    if site.calls is not None and site.calls > 1:
        message = (
            f"{site.layer}: it is called {site.calls} times in a forward, so its inputs have no one basis; "
        )
        raise UserError(message + "match it by another rule above")


def _note(network: TrainedNetwork, site: Site, theirs: Site) -> str:
    if site.geometry is None or theirs.geometry is None:
        return f"statistics measured behind the resampled layers of {network.origin}"
    dense = [other.layer for other in network.graph.sites if other.kind in DENSE]
    if site.layer == dense[-1]:
        return f"carried over from {network.origin}, in the new channels' basis"
    count, ours = theirs.geometry.out_channels, site.geometry.out_channels
    return f"{ours} filters resampled from {count} of {network.origin}"
