"""What one network gives to others: the covariances of its layers, each with its place and geometry.

    trained network + data → `measure` → Harvest → `carried` to a layer of another network → draws

A harvest whose network is not trained yet is *prospective*: layers and geometries are known from the
graph, covariances are not. Plans can be made and shown from it, but not applied.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from pydantic import BaseModel

from mimetic.covariance.algebra import mixed
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.layout import filter_shape, stored_shape
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Graph, Site
from mimetic.recipe.base import Spec
from mimetic.recipe.measured import Agop, Carried, Filters, Measured, Patches
from mimetic.recipe.recipe import Arm

KINDS = ("conv", "depthwise_conv", "pointwise_conv", "linear")
"""Kinds of layers whose weights are filters over patches."""

_HOOKED = {"Conv1d", "Conv2d", "Conv3d", "Linear"}


@dataclass(frozen=True, slots=True, eq=False)
class Harvested:
    """One layer of a harvest.

    Attributes:
        layer: Canonical name in its own network.
        kind: Kind of its site.
        depth: Fraction in [0, 1] among the sites of this kind.
        geometry: Its weight as a map over patches.
        covariance: What was measured; None where the network is not trained yet.
    """

    layer: str
    kind: str
    depth: float
    geometry: Geometry
    covariance: Covariance | None = None

    def __str__(self) -> str:
        """Return the layer as messages show it."""
        return f"`{self.layer}` ({described(self.kind, self.geometry)})"


@dataclass(frozen=True, slots=True, eq=False)
class Harvest:
    """The layers of one network in execution order.

    Attributes:
        origin: The network, as messages and plans show it, e.g. `stage small`.
        statistic: `filters`, `nfm`, `agop` or `patches`.
        layers: Its layers in execution order.
    """

    origin: str
    statistic: str
    layers: tuple[Harvested, ...]

    @property
    def pending(self) -> bool:
        """Return whether the covariances are still to be measured."""
        return any(harvested.covariance is None for harvested in self.layers)

    @property
    def digest(self) -> str | None:
        """Return a digest of statistic, layers, geometries and factors; None for a prospective harvest.

        The origin does not enter: equal digests, equal covariances.
        """
        state = blake2b(self.statistic.encode(), digest_size=16)
        for harvested in self.layers:
            if harvested.covariance is None:
                return None
            told = (harvested.layer, harvested.kind, harvested.depth, harvested.geometry)
            state.update(f"|{told}|{harvested.covariance.digest()}".encode())
        return state.hexdigest()

    def layer(self, name: str) -> Harvested | None:
        """Return a layer by its name in the harvested network."""
        return next((harvested for harvested in self.layers if harvested.layer == name), None)

    def patch(self, harvested: Harvested) -> PatchGeometry:
        """Return the patch of a layer's covariance, measured or not: spatial where filters are."""
        if harvested.covariance is not None:
            return harvested.covariance.patch
        geometry = harvested.geometry
        channels = 1 if self.statistic == "filters" else geometry.patch_channels
        return PatchGeometry(channels, geometry.kernel_size)


def described(kind: str, geometry: Geometry | None) -> str:
    """Return a layer's kind and the shape of its filters, e.g. `depthwise_conv 64×1×5×5`."""
    return kind if geometry is None else f"{kind} {shape_of(geometry)}"


def shape_of(geometry: Geometry) -> str:
    """Return the shape of a layer's filters, outputs first, e.g. `64×1×5×5`."""
    return "×".join(str(side) for side in filter_shape(geometry))


def harvest_key(spec: Spec) -> str:
    """Return the name under which a rule's covariance finds its harvest: the section, word for word.

    What `patches` gives depends on the arm's own model and data beside the section: keep harvests of
    arms apart that differ in these.
    """
    return spec.model_dump_json(by_alias=True)


def harvests_needed(arm: Arm) -> dict[str, Spec]:
    """Return the sections of an arm's rules that need a trained network or data, by `harvest_key`.

    Files are not among them: they are read where a plan is made.
    """
    specs = (spec for rule in arm.init if rule.covariance is not None for spec in _within(rule.covariance))
    return {harvest_key(spec): spec for spec in specs if isinstance(spec, Measured | Patches)}


def prospect(spec: Spec, graph: Graph, origin: str, *, kinds: Collection[str] | None = None) -> Harvest:
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


def blank(site: Site) -> Harvested:
    """Return a layer of which only the geometry is known."""
    assert site.geometry is not None
    return Harvested(site.layer, site.kind, site.depth, site.geometry)


def harvestable(
    spec: Spec, graph: Graph, origin: str, *, kinds: Collection[str] | None = None
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


def averaged(harvests: Sequence[Harvest], *, origin: str) -> Harvest:
    """Return the mean of the harvests of several networks of one architecture, layer by layer.

    Raises:
        UserError: If their layers differ, or there are none.
    """
    if not harvests:
        message = f"{origin}: there is no harvest to average; give at least one seed"
        raise UserError(message)
    first = harvests[0]
    for other in harvests[1:]:
        odd = {(h.layer, h.geometry) for h in first.layers} ^ {(h.layer, h.geometry) for h in other.layers}
        if odd:
            message = f"{origin}: {first.origin} and {other.origin} differ in layer `{min(odd)[0]}`; "
            raise UserError(message + "average harvests of one architecture")
    if len(harvests) == 1:
        return replace(first, origin=origin)
    layers = tuple(_mean([harvest.layers[i] for harvest in harvests]) for i in range(len(first.layers)))
    return Harvest(origin, first.statistic, layers)


def _mean(parts: Sequence[Harvested]) -> Harvested:
    covariances = [part.covariance for part in parts if part.covariance is not None]
    if len(covariances) < len(parts):
        return replace(parts[0], covariance=None)
    count = len(parts)
    mean = mixed(covariances, [1.0 / count] * count)
    told = replace(mean.provenance, notes=(*covariances[0].provenance.notes, f"mean of {count} networks"))
    return replace(parts[0], covariance=replace(mean, provenance=told))


def _fits(spec: Spec, site: Site) -> bool:
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
    if isinstance(spec, Agop):
        return site.calls != 0 and bool(_HOOKED.intersection(site.classes))
    return True


def _within(value: object) -> Iterator[Spec]:
    """Yield the sections inside a value, itself included."""
    if isinstance(value, Spec):
        yield value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _within(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _within(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _within(inner)


def _listing(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
