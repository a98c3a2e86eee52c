"""What one network gives to others: the covariances of its layers, each with its place and geometry.

    trained network + data → `measure` → Harvest → `carried` to a layer of another network → draws

A harvest whose network is not trained yet is *prospective*: layers and geometries are known from the
graph, covariances are not. Plans can be made and printed from it, but not applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from mimetic.config.registry import Component
from mimetic.covariance.algebra import effective_rank, mixed
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.layout import filter_shape
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Site, shape_text
from mimetic.printable import pluralize
from mimetic.tables import NONE, Table


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

    def to_dict(self) -> dict[str, object]:
        """Return the layer with rank, trace and spectrum of its covariance as plain values."""
        cov, filters = self.covariance, shape_of(self.geometry)
        found = {"layer": self.layer, "kind": self.kind, "depth": self.depth, "filters": filters}
        if cov is None:
            return found
        values, about = cov.eigenvalues(), cov.provenance
        return found | {
            "patch": str(cov.patch),
            "rank": cov.rank if about.rank is None else about.rank,
            "size": cov.patch.size,
            "trace": cov.trace,
            "largest": float(values[0]),
            "smallest": 0.0 if about.smallest_eigenvalue is None else about.smallest_eigenvalue,
            "effective": effective_rank(values) if cov.trace > 0.0 else 0.0,
            "notes": [note for note in (about.repair, *about.notes) if note is not None],
        }


_COLUMNS = ("layer", "kind", "filters", "patch", "rank", "trace", "largest", "smallest", "effective")


def _row(layer: dict[str, object]) -> tuple[str, ...]:
    """Return the row of a layer, without numbers where nothing was measured."""
    if "rank" not in layer:
        return tuple(str(layer.get(name, NONE)) for name in _COLUMNS)
    digits = {"trace": ".4g", "largest": ".4g", "smallest": ".2g", "effective": ".1f"}
    shown = layer | {"rank": f"{layer['rank']} of {layer['size']}"}
    return tuple(format(shown[name], digits.get(name, "")) for name in _COLUMNS)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Harvest:
    """The layers of one network in execution order.

    Attributes:
        origin: The network, as messages and plans show it, e.g. `stage small`.
        statistic: `filters`, `nfm`, `agop` or `patches`.
        layers: Its layers in execution order.
        spatial: Whether its covariances are over the kernels alone.
    """

    origin: str
    statistic: str
    layers: tuple[Harvested, ...]
    spatial: bool = False

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"<Harvest: {self.summary}>"

    def _repr_html_(self) -> str:
        return self.table().page()

    @property
    def summary(self) -> str:
        """Return what was measured, of which network, in how many layers."""
        count = len(self.layers)
        return f"{self.statistic} of {self.origin}, {pluralize(count, 'layer')}"

    def table(self) -> Table:
        """Return the covariances, one row for each layer."""
        rows = tuple(_row(harvested.to_dict()) for harvested in self.layers)
        optional = ("smallest", "patch", "largest", "kind", "filters")
        return Table(self.summary, _COLUMNS, rows, optional=optional, left=4)

    def to_dict(self) -> dict[str, object]:
        """Return the harvest without its covariances, as plain values."""
        layers = [harvested.to_dict() for harvested in self.layers]
        return {
            "statistic": self.statistic,
            "origin": self.origin,
            "spatial": self.spatial,
            "digest": self.digest,
            "layers": layers,
        }

    @property
    def digest(self) -> str | None:
        """Return a digest of statistic, layers, geometries and factors; None for a prospective harvest.

        The origin does not enter: equal digests, equal covariances.
        """
        state = blake2b(self.statistic.encode(), digest_size=16)
        for harvested in self.layers:
            if harvested.covariance is None:
                return None
            place = (harvested.layer, harvested.kind, harvested.depth, harvested.geometry)
            state.update(f"|{place}|{harvested.covariance.digest()}".encode())
        return state.hexdigest()

    def layer(self, name: str) -> Harvested | None:
        """Return a layer by its name in the harvested network."""
        return next((harvested for harvested in self.layers if harvested.layer == name), None)

    def patch(self, harvested: Harvested) -> PatchGeometry:
        """Return the patch of a layer's covariance, measured or not: spatial where filters are."""
        if harvested.covariance is not None:
            return harvested.covariance.patch
        geometry = harvested.geometry
        channels = 1 if self.spatial else geometry.patch_channels
        return PatchGeometry(channels, geometry.kernel_size)


def described(kind: str, geometry: Geometry | None) -> str:
    """Return a layer's kind and the shape of its filters, e.g. `depthwise_conv 64×1×5×5`."""
    return kind if geometry is None else f"{kind} {shape_of(geometry)}"


def shape_of(geometry: Geometry) -> str:
    """Return the shape of a layer's filters, outputs first, e.g. `64×1×5×5`."""
    return shape_text(filter_shape(geometry))


def blank(site: Site) -> Harvested:
    """Return a layer of which only the geometry is known."""
    assert site.geometry is not None
    return Harvested(site.layer, site.kind, site.depth, site.geometry)


def averaged(harvests: Sequence[Harvest], *, origin: str) -> Harvest:
    """Return the mean of the harvests of one or more networks of one architecture, layer by layer.

    Raises:
        UserError: If their layers differ.
    """
    first = harvests[0]
    for other in harvests[1:]:
        odd = {(h.layer, h.geometry) for h in first.layers} ^ {(h.layer, h.geometry) for h in other.layers}
        if odd:
            raise UserError(
                f"{origin}: {first.origin} and {other.origin} differ in layer `{min(odd)[0]}`; "
                "average harvests of one architecture",
                code="MIM-V172",
            )
    if len(harvests) == 1:
        return replace(first, origin=origin)
    layers = tuple(_mean([harvest.layers[i] for harvest in harvests]) for i in range(len(first.layers)))
    return replace(first, origin=origin, layers=layers)


def _mean(parts: Sequence[Harvested]) -> Harvested:
    covariances = [part.covariance for part in parts if part.covariance is not None]
    if len(covariances) < len(parts):
        return replace(parts[0], covariance=None)
    count = len(parts)
    mean = mixed(covariances, [1.0 / count] * count)
    notes = (*covariances[0].provenance.notes, f"mean of {count} networks")
    mean = replace(mean, provenance=replace(mean.provenance, notes=notes))
    return replace(parts[0], covariance=mean)


def harvest_key(spec: Component) -> str:
    """Return the name under which a rule's covariance finds its harvest: the section, word for word.

    What `patches` gives depends on the arm's own model and data beside the section: keep harvests of
    arms apart that differ in these.
    """
    return spec.model_dump_json(by_alias=True)
