"""What a plan holds: one entry per parameter, one action per draw."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mimetic.initializers.draw import Moments, ResolvedInit


@dataclass(frozen=True, slots=True)
class Entry:
    """How one parameter begins.

    Attributes:
        parameter: Canonical name.
        aliases: Other names of the same tensor.
        layer: Canonical name of the layer that owns it.
        kind: Kind of the site through which it begins: its layer's, or a composite one.
        shape: Shape of the tensor.
        dtype: Its dtype.
        rule: Id of the rule that claims it; None where the model's own values stay.
        where: Place of that rule, e.g. `recipe.yaml:41`.
        initializer: Registered name of the initializer.
        arguments: Its resolved arguments, plain values.
        moments: Expected moments of the entries, where the law is known.
        key: Seed of the parameter's own random stream.
        frozen: Whether training leaves it alone.
        notes: What was done on the way.
    """

    parameter: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    key: int
    aliases: tuple[str, ...] = ()
    rule: str | None = None
    where: str | None = None
    initializer: str = "keep"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    moments: Moments | None = None
    frozen: bool = False
    notes: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what decides the parameter's values, and nothing else: the part that is hashed."""
        return {
            "parameter": self.parameter,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "initializer": self.initializer,
            "arguments": dict(self.arguments),
            "key": self.key,
            "frozen": self.frozen,
        }


@dataclass(frozen=True, slots=True)
class Action:
    """One draw and the parameters of a site it fills.

    Attributes:
        site: Canonical name of the site; streams of a composite one are keyed by it.
        layer: Canonical name of the layer the draw may look at.
        parameters: Canonical names by local names.
        draw: The draw.
    """

    site: str
    layer: str
    parameters: Mapping[str, str]
    draw: ResolvedInit
