"""Sites: the places of a network where an initializer acts."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mimetic.graph.config import SiteKind
from mimetic.graph.structure import Slot, Structure
from mimetic.tables import Table


def depths(kinds: Sequence[str]) -> list[float]:
    """Return depths of sites of these kinds: places from 0 to 1 among those of a kind, 0 for a single one."""
    totals, placed = Counter(kinds), Counter[str]()
    found = []
    for kind in kinds:
        found.append(placed[kind] / max(totals[kind] - 1, 1))
        placed[kind] += 1
    return found


def shape_text(shape: Iterable[int]) -> str:
    """Write a shape: `64×1×5×5`."""
    return "×".join(map(str, shape)) or "a number"


@dataclass(frozen=True, slots=True)
class Geometry:
    """A layer's weight as a linear map from patches (channel, row, column) to outputs.

    Attributes:
        in_channels: Input channels or features, over all groups.
        out_channels: Output channels or features.
        kernel_size: Sides of the kernel, empty for linear and embedding layers.
        stride: Strides, one per side.
        groups: Convolution groups.
        transposed: Whether the weight is stored input first, as transposed convolutions and GPT-2's
            Conv1D do.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    @property
    def patch_channels(self) -> int:
        """Return the number of input channels of one filter."""
        return self.in_channels // self.groups

    @property
    def fan_in(self) -> int:
        """Return the number of weights of one filter, the dimension d of its covariance."""
        return self.patch_channels * math.prod(self.kernel_size)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter tensor of a site.

    Attributes:
        name: Canonical qualified name, e.g. `blocks.0.spatial.weight`.
        local: Name below the site's layer, e.g. `weight`.
        shape: Its shape.
        dtype: Its dtype, e.g. `float32`.
        aliases: Other canonical names of the same tensor (tied weights).
        experts: Number E of equal maps stacked along the first dimension (E, …); None if not stacked.
        maps: Outputs of each of several linear maps stored one after the other: gates, or q, k and v.
        zero_rows: Rows that the layer's class keeps at zero.
        max_norm: Norm to which a forward shortens longer rows; None if it does not.
        by: What computes it in every forward, e.g. `weight norm`; None for a tensor that is stored.
        stored: Names of the parameters from which it is computed; empty for a tensor that is stored.
        frozen: Names of those, or its own, that take no gradient.
        normalized: Whether what computes it fixes its norm, and values are set up to a factor.
        obstacle: Why no values can be written to it; None if they can.
    """

    name: str
    local: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...] = ()
    experts: int | None = None
    maps: tuple[int, ...] = ()
    zero_rows: tuple[int, ...] = ()
    max_norm: float | None = None
    by: str | None = None
    stored: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    normalized: bool = False
    obstacle: str | None = None

    @property
    def can_train(self) -> bool:
        """Return whether its entries are numbers that can have a gradient."""
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True, slots=True)
class Site:
    """The parameters of one layer with their geometry, or of several layers together.

    Attributes:
        layer: Canonical layer name; empty for the model itself. For a position table or a stack of experts
            that is one of several parameters of its layer, that parameter's name.
        kind: Kind of the site.
        classes: Names of the layer's class and its bases, nearest first.
        geometry: The weight as a map over patches; None if it is not one.
        parameters: The layer's own parameters, tied ones only at their first owner. For a composite site,
            those of its slots, with local names below its layer (`qkv.weight`).
        depth: Fraction in [0, 1] among the sites of this kind, in order; 0 for a single one.
        calls: Number of calls in one forward; None if it could not be traced.
        structure: The roles of the parameters; for composite sites only.
    """

    layer: str
    kind: SiteKind
    classes: tuple[str, ...]
    geometry: Geometry | None
    parameters: tuple[Parameter, ...]
    depth: float = 0.0
    calls: int | None = None
    structure: Structure | None = None

    @property
    def main(self) -> str:
        """Return the local name of the parameter that a rule without `param` claims."""
        return next((p.local for p in self.parameters if p.name == self.layer), "weight")

    def parameter(self, local: str) -> Parameter:
        """Return a parameter by its local name."""
        return next(parameter for parameter in self.parameters if parameter.local == local)

    def slot(self, name: str) -> Slot | None:
        """Return a slot of a composite site, or None if it has none of that name."""
        slots = () if self.structure is None else self.structure.slots
        return next((slot for slot in slots if slot.name == name), None)

    def slots_by_parameter(self) -> dict[str, tuple[str, ...]]:
        """Return the slots in each parameter of a composite site, without biases."""
        slots = () if self.structure is None else self.structure.slots
        slots_in = {p.local: tuple(s.name for s in slots if s.parameter == p.local) for p in self.parameters}
        return {
            p: names for p, names in slots_in.items() if not all(name.endswith("_bias") for name in names)
        }

    def slot_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (O, …) of a slot."""
        slot = self.slot(name)
        if slot is None:
            raise KeyError(name)
        return slot.shape(self.parameter(slot.parameter).shape)


@dataclass(frozen=True, slots=True, repr=False)
class Graph:
    """All sites of a network in execution order.

    Attributes:
        sites: One site per layer with parameters; together they contain every parameter exactly once.
        traced: Whether sites are in order of execution; otherwise in order of registration.
        note: Why the forward could not be traced.
        layers: Names of all layers, also of those without parameters, in order of registration.
        composites: Sites of several parameters, in order of execution. Their parameters are also in the
            layers' sites.
        classes: Names of each layer's class and its bases, by layer.
        heads: Declared number of heads by layer, whether recognized as an attention or not.
    """

    sites: tuple[Site, ...]
    traced: bool
    note: str | None = None
    layers: tuple[str, ...] = field(default=())
    composites: tuple[Site, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    heads: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"<Graph: {self._summary}>"

    def _repr_html_(self) -> str:
        rows = []
        for site in (*self.sites, *self.composites):
            shapes = ", ".join(f"{p.local} {shape_text(p.shape)}" for p in site.parameters)
            rows.append((site.layer, site.kind, shapes))
        return Table(self._summary, ("layer", "kind", "parameters"), tuple(rows), left=3).collapsed().page()

    @property
    def _summary(self) -> str:
        parameters = sum(len(site.parameters) for site in self.sites)
        order = "execution" if self.traced else "registration"
        return f"{len(self.sites)} layers with {parameters} parameters, in order of {order}"
