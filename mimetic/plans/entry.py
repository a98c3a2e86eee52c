"""The parts of a plan: one entry per parameter, one action per draw."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mimetic.initializers.resolved import Moments, ResolvedInit


@dataclass(frozen=True, slots=True)
class Entry:
    """How one parameter is initialized.

    Attributes:
        parameter: Canonical name.
        aliases: Other names of the same tensor.
        layer: Canonical name of the layer that owns it.
        kind: Kind of the site through which it is initialized: its layer's, or a composite one.
        shape: Shape of the tensor.
        dtype: Its dtype.
        rule: Id of the rule that claims it; None where the model's own values remain.
        where: Position of that rule, e.g. `recipe.yaml:41`.
        initializer: Registered name of the initializer.
        arguments: Its resolved arguments, plain values.
        moments: Expected moments of the entries, where the distribution is known.
        key: Seed of the parameter's random stream.
        frozen: Whether training leaves it unchanged.
        stored: Names of the parameters from which it is computed; empty for a parameter.
        fixed: Names of those that training leaves unchanged.
        notes: Remarks for the reader, e.g. that a covariance was resized.
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
    stored: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    def identity(self) -> dict[str, object]:
        """Return what determines the parameter's values, and nothing else: the part that is hashed."""
        parts = {"stored": list(self.stored), "fixed": list(self.fixed)} if self.stored else {}
        return {
            "parameter": self.parameter,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "initializer": self.initializer,
            "arguments": dict(self.arguments),
            "key": self.key,
            "frozen": self.frozen,
            **parts,
        }


@dataclass(frozen=True, slots=True)
class Action:
    """One draw and the parameters of a site it fills.

    Attributes:
        site: Canonical name of the site; the streams of a composite site are keyed by it.
        layer: Canonical name of the layer the draw may read.
        parameters: Canonical names by local names.
        init: The resolved initializer.
    """

    site: str
    layer: str
    parameters: Mapping[str, str]
    init: ResolvedInit
