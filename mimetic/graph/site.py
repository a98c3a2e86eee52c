"""Sites: the places of a network where an initializer acts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mimetic.graph.config import SiteKind
from mimetic.graph.structure import Slot, Structure


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
        """Return the channels one filter sees."""
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
    """

    name: str
    local: str
    shape: tuple[int, ...]
    dtype: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """One layer's parameters with their geometry, or several layers' taken together.

    Attributes:
        layer: Canonical layer name (wrapper segments removed); empty for the model itself. Of a position
            table that is one parameter among others of its layer, that parameter's name.
        kind: What the structure says it is.
        classes: Names of the layer's class and its bases, nearest first.
        geometry: The weight as a map over patches; None where there is no such reading.
        parameters: The parameters the layer owns itself, tied ones only at their first owner. Of a
            composite site, those of its slots, with local names below its layer (`qkv.weight`).
        depth: Fraction in [0, 1] among the sites of this kind, in order; 0 for a single one.
        calls: How often one forward calls the layer; None if it could not be traced.
        structure: What the parameters are to each other; of composite sites only.
    """

    layer: str
    kind: SiteKind
    classes: tuple[str, ...]
    geometry: Geometry | None
    parameters: tuple[Parameter, ...]
    depth: float = 0.0
    calls: int | None = None
    structure: Structure | None = None

    def parameter(self, local: str) -> Parameter:
        """Return a parameter by its local name."""
        return next(parameter for parameter in self.parameters if parameter.local == local)

    def slot(self, name: str) -> Slot | None:
        """Return a slot of a composite site; None where it has none of that name."""
        slots = () if self.structure is None else self.structure.slots
        return next((slot for slot in slots if slot.name == name), None)

    def holding(self) -> dict[str, tuple[str, ...]]:
        """Return which slots each parameter of a composite site holds, biases left out."""
        slots = () if self.structure is None else self.structure.slots
        held = {p.local: tuple(s.name for s in slots if s.parameter == p.local) for p in self.parameters}
        return {p: names for p, names in held.items() if not all(name.endswith("_bias") for name in names)}

    def slot_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (O, …) of the map a slot holds."""
        slot = self.slot(name)
        if slot is None:
            raise KeyError(name)
        return slot.shape(self.parameter(slot.parameter).shape)


@dataclass(frozen=True, slots=True)
class Graph:
    """All sites of a network in execution order.

    Attributes:
        sites: One site per layer that owns parameters; together they own every parameter exactly once.
        traced: Whether the order is that of a forward; else that of registration.
        note: Why the forward could not be traced.
        layers: Every layer's name, those that own no parameters included, in order of registration.
        composites: Sites that take several parameters together, in the order of execution. Their
            parameters are those of the layers' sites once more.
        classes: Names of each layer's class and its bases, by layer.
        heads: Number of heads a layer says it has, by layer, recognised as an attention or not.
    """

    sites: tuple[Site, ...]
    traced: bool
    note: str | None = None
    layers: tuple[str, ...] = field(default=())
    composites: tuple[Site, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    heads: Mapping[str, int] = field(default_factory=dict)
