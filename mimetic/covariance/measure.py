"""Measure a trained network: one covariance for each of its layers, of the statistic a section asks for.

`filters` and `nfm` read the weights (arXiv 2210.03651, 2309.00570), `agop` takes gradients at images, and
`patches` looks at the images alone. Shrinkage and rank are applied here, once, before any transfer.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor, nn

from mimetic.config.registry import Component
from mimetic.covariance.agop import agop
from mimetic.covariance.carry import refined
from mimetic.covariance.config import Agop, Filters, Measured, Nfm, Patches
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.filters import filter_covariance
from mimetic.covariance.gradients import gradient_grams
from mimetic.covariance.harvest import Harvest, Harvested, blank, described
from mimetic.covariance.nfm import nfm
from mimetic.covariance.patches import patch_covariance, whitened
from mimetic.covariance.prospect import harvestable
from mimetic.covariance.shrinkage import LARGEST, intensity
from mimetic.covariance.subject import Initial, Progress, Subject
from mimetic.errors import UserError
from mimetic.graph.site import Graph, Site

CHANGE = "of the change since initialization"
"""Note of a statistic of W − W₀, which leaves out the isotropic part that training did not touch."""


def measure(
    spec: Component,
    model: nn.Module,
    graph: Graph,
    *,
    origin: str,
    images_NCHW: Tensor | None = None,
    initial: Initial | None = None,
    seed: int = 0,
    kinds: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Harvest:
    """Return the covariances of a trained network's layers.

    Args:
        spec: A `filters`, `nfm`, `agop` or `patches` section; what it says of `from` is not looked at.
        model: The network on its device; unchanged.
        graph: Its sites.
        origin: The network, as messages and plans show it, e.g. `stage small`.
        images_NCHW: Training images as the network saw them: floating point, normalized. The first so
            many the section asks for are used, or all of fewer.
        initial: The network at its initialization, for `of: change`.
        seed: Seed of the random probes.
        kinds: Kinds of layers wanted; all unless given.
        progress: Called with what is done and the total: layers, or images where they are needed.

    Raises:
        UserError: If no layer can be measured, weights are not finite, images are missing or do not
            fit; origin, layer, geometry and repair are named.
    """
    subject = Subject(
        model=model,
        graph=graph,
        origin=origin,
        images_NCHW=images_NCHW,
        initial=initial,
        seed=seed,
        kinds=kinds,
        progress=progress,
    )
    return statistic(spec, subject)


@singledispatch
def statistic(spec: Component, subject: Subject) -> Harvest:
    """Return the harvest a section asks for; others join by `statistic.register(TheirSpec)`."""
    message = f"{subject.origin}: nothing measures the covariance `{type(spec).__name__}`; register a "
    raise UserError(message + "function with `mimetic.covariance.measure.statistic.register`")


@statistic.register
def _filters(spec: Filters, subject: Subject) -> Harvest:
    def found(site: Site) -> Covariance:
        weight_OIK = _weight(spec, subject, site)
        cov = filter_covariance(
            weight_OIK,
            centered=spec.centered,
            ddof=1 if spec.centered else 0,
            source=f"filters of {site.layer} of {subject.origin}",
        )
        samples_HD = weight_OIK.flatten(2).flatten(0, 1)
        if spec.centered:
            samples_HD = samples_HD - samples_HD.mean(dim=0)
            cov = cov.noted("mean filter taken out")
        return _refined(cov, spec, samples_HD)

    return _layer_by_layer(spec, subject, found)


@statistic.register
def _nfm(spec: Nfm, subject: Subject) -> Harvest:
    def found(site: Site) -> Covariance:
        weight_OIK = _weight(spec, subject, site)
        source = f"nfm of {site.layer} of {subject.origin}"
        cov = nfm(weight_OIK, normalize=spec.normalize, source=source)
        return _refined(cov, spec, weight_OIK.flatten(1))

    return _layer_by_layer(spec, subject, found)


@statistic.register
def _agop(spec: Agop, subject: Subject) -> Harvest:
    sites = harvestable(spec, subject.graph, subject.origin, kinds=subject.kinds)
    images = subject.images(spec.images, what="agop", first=sites[0])
    for site in sites:
        subject.weight(site)  # NaN is found before the long way through the data
    called = subject.called(sites, images[:1])
    grams = gradient_grams(
        subject.inner,
        list(called),
        subject.batches(images, subject.device),
        outputs=spec.outputs,
        probes=spec.probes,
        seed=subject.seed,
        drop_bias=spec.drop_bias,
        progress=lambda done: subject.tell(done, len(images)),
    )
    layers = []
    for name, site in called.items():
        source = f"agop of {site.layer} of {subject.origin}"
        cov = agop(subject.weight(site), grams.pop(name), power=spec.power, source=source)
        layers.append(replace(blank(site), covariance=_refined(cov, spec)))
    return Harvest(subject.origin, "agop", tuple(layers))


@statistic.register
def _patches(spec: Patches, subject: Subject) -> Harvest:
    (first,) = harvestable(spec, subject.graph, subject.origin, kinds=subject.kinds)
    assert first.geometry is not None
    images = subject.images(spec.images, what="patches", first=first)
    if images.shape[1] != first.geometry.in_channels:
        message = f"{subject.origin}: `{first.layer}` ({described(first.kind, first.geometry)}) takes "
        message += f"{first.geometry.in_channels} channels and the images have {images.shape[1]}; "
        raise UserError(message + "give the images the network is trained on")
    rows, columns = first.geometry.kernel_size
    cov = patch_covariance(
        subject.batches(images, torch.device("cpu")),
        (rows, columns),
        stride=_one(first.geometry.stride, first, "stride"),
        padding=_padding(subject.modules[first.layer], first),
        source=f"patches of {first.layer} of {subject.origin}",
    )
    subject.tell(len(images), len(images))
    if spec.whiten:
        cov = whitened(cov, spec.epsilon)
    return Harvest(subject.origin, "patches", (replace(blank(first), covariance=cov),))


def _weight(spec: Filters | Nfm, subject: Subject, site: Site) -> Tensor:
    """Return a layer's filters (O, I, *K), or their change."""
    weight_OIK = subject.weight(site)
    return weight_OIK if spec.of == "weights" else weight_OIK - subject.initial_weight(site)


def _layer_by_layer(spec: Measured, subject: Subject, found: Callable[[Site], Covariance]) -> Harvest:
    """Measure the weights of each layer."""
    sites = harvestable(spec, subject.graph, subject.origin, kinds=subject.kinds)
    layers: list[Harvested] = []
    for site in sites:
        layers.append(replace(blank(site), covariance=found(site)))
        subject.tell(len(layers), len(sites))
    return Harvest(subject.origin, spec.type_name(), tuple(layers))


def _refined(cov: Covariance, spec: Measured, samples_HD: Tensor | None = None) -> Covariance:
    """Apply the shrinkage and the rank of a section, and note what it is a statistic of."""
    if spec.shrink != 0.0 and cov.patch.size > LARGEST:
        message = f"covariance `{cov.provenance.source}`: `shrink` has full rank over its {cov.patch.size} "
        message += f"coordinates (limit {LARGEST}); leave `shrink` out, narrow the layers with `kind`, "
        raise UserError(message + "or use `filters`, whose covariance is spatial")
    alpha = spec.shrink
    if alpha == "auto":
        if samples_HD is None:
            message = f"covariance `{cov.provenance.source}`: `shrink: auto` is estimated from filters, and "
            raise UserError(message + f"`{spec.type_name()}` is not made of them; give a number")
        alpha = intensity(samples_HD)
    found = refined(cov, shrink=alpha, rank=spec.rank)
    return found.noted(CHANGE) if getattr(spec, "of", "weights") == "change" else found


def _one(values: object, site: Site, what: str) -> int:
    """Return the one value of all sides."""
    sides = set(values) if isinstance(values, tuple) else {values}
    if len(sides) == 1 and isinstance(side := sides.pop(), int):
        return side
    message = f"{site.layer} ({described(site.kind, site.geometry)}): patches need one {what} for all sides, "
    raise UserError(message + f"this layer has {values}; use `filters`, `nfm` or `agop` here")


def _padding(module: nn.Module, site: Site) -> int:
    """Return the zeros a layer puts around its images."""
    padding: object = module.padding
    if padding == "valid":
        return 0
    if padding == "same":
        padding = tuple((side - 1) / 2 for side in module.kernel_size)  # type: ignore[union-attr]
        padding = tuple(int(side) if side == int(side) else side for side in padding)
    return _one(padding, site, "padding")
