"""Structure of a composite site: the roles of its parameters.

A composite site combines several parameters: the four maps of an attention, a table of positions. Its maps
are *slots*, ranges of outputs of stored tensors. So a fused `qkv`, torch's `in_proj_weight`, GPT-2's
input-first `c_attn` and four separate layers look the same to an initializer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mimetic.printable import pluralize


@dataclass(frozen=True, slots=True)
class Slot:
    """A map of a composite site: a range of outputs of one stored tensor.

    Attributes:
        name: Its role in the site, e.g. `q`, `out_bias`.
        parameter: The tensor's name below the site's layer, e.g. `qkv.weight`.
        start: First output.
        stop: Output after the last.
        transposed: Whether the tensor is stored input first, with outputs along the second dimension.
    """

    name: str
    parameter: str
    start: int
    stop: int
    transposed: bool = False

    @property
    def outputs(self) -> int:
        """Return the number of outputs."""
        return self.stop - self.start

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape (O, …) of the map inside a tensor of a stored shape."""
        return (self.outputs, *(stored[:1] if self.transposed else stored[1:]))


@dataclass(frozen=True, slots=True)
class Attention:
    """Queries, keys and values of several heads, and the output projection.

    The slots are `q` (H·k, d_q), `k` (G·k, d_k), `v` (G·m, d_v) and `out` (d, H·m), head by head, and
    their biases `q_bias`, …, if there are any.

    Attributes:
        slots: The maps.
        heads: Query heads H.
        kv_heads: Key and value heads G, a divisor of H; fewer than H in grouped-query attention.
        head_dim: Width k of a query or key.
        value_dim: Width m of a head's value.
        grid: Rows and columns of the tokens, if the network has one table of positions with a grid.
        table: That table's parameter and its structure, if there is only one.
        notes: Remarks shown in the plan.
    """

    slots: tuple[Slot, ...]
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    grid: tuple[int, int] | None = None
    table: "tuple[str, Position] | None" = None
    notes: tuple[str, ...] = ()

    def describe(self, parameter: str) -> str | None:
        """Describe the maps in a stored tensor; None for biases."""
        maps = [slot for slot in self.slots if slot.parameter == parameter]
        if not maps or all(slot.name.endswith("_bias") for slot in maps):
            return None
        return f"{ranges(maps)}; {self.sizes}"

    @property
    def sizes(self) -> str:
        """Describe the heads."""
        grouped = f" over {self.kv_heads} of keys and values" if self.kv_heads < self.heads else ""
        width = self.head_dim if self.head_dim == self.value_dim else f"{self.head_dim}/{self.value_dim}"
        return f"{pluralize(self.heads, 'head')} of {width}{grouped}"


@dataclass(frozen=True, slots=True)
class Position:
    """A table of learned position embeddings.

    Attributes:
        slots: One slot, `table`: the whole tensor, (T, D) or (1, T, D).
        tokens: Number of positions T.
        dim: Width D.
        prefix: Positions before the grid, of class and register tokens.
        grid: Rows and columns of the other positions; None for positions of a sequence.
        notes: Remarks shown in the plan.
    """

    slots: tuple[Slot, ...]
    tokens: int
    dim: int
    prefix: int = 0
    grid: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def describe(self, parameter: str) -> str | None:  # noqa: ARG002 - there is one
        """Describe the table."""
        return self.sizes

    @property
    def sizes(self) -> str:
        """Describe the positions."""
        if self.grid is None:
            return f"{self.tokens} positions of a sequence"
        tokens = f" after {pluralize(self.prefix, 'other')}" if self.prefix else ""
        return f"a grid of {self.grid[0]}×{self.grid[1]} positions{tokens}"


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A selective state space: hₜ = exp(Δₜ A) hₜ₋₁ + Δₜ bₜ xₜᵀ, yₜ = cₜᵀ hₜ (Mamba, Mamba-2).

    The slots are `conv` (D, 1, T) and `conv_bias` of the short convolution; `write` (G·S, d) and `read`,
    whose outputs are bₜ and cₜ; `step` and `step_bias` (O), before the softplus that gives Δₜ; `decay`, the
    logarithm of -A: (D, S), or (H) with one per head.

    Attributes:
        slots: The maps.
        inner: Channels D of the recurrence.
        state: States S of a channel.
        heads: Number of heads, which share a decay; None if each channel and state has its own (Mamba).
        groups: Groups of heads that share b and c.
        notes: Remarks shown in the plan.
    """

    slots: tuple[Slot, ...]
    inner: int
    state: int
    heads: int | None = None
    groups: int = 1
    notes: tuple[str, ...] = ()

    def describe(self, parameter: str) -> str | None:
        """Describe the maps in a stored tensor, and the state at `decay`."""
        maps = [slot for slot in self.slots if slot.parameter == parameter]
        if [slot.name for slot in maps] == ["decay"]:
            return self.sizes
        if all(slot.start == 0 for slot in maps):
            return None
        return f"{ranges(maps)}; the rows before stay as they are"

    @property
    def sizes(self) -> str:
        """Describe channels, states and heads."""
        heads = "" if self.heads is None else f", {pluralize(self.heads, 'head')}"
        return f"{self.inner} channels of {self.state} states{heads}"


@dataclass(frozen=True, slots=True)
class Mlp:
    """Two linear layers with a nonlinearity between: slots `fc1` (O, I), `fc2` (I, O) and their biases.

    Attributes:
        slots: The maps.
        notes: Remarks shown in the plan.
    """

    slots: tuple[Slot, ...]
    notes: tuple[str, ...] = ()

    def describe(self, parameter: str) -> str | None:
        """Describe a matrix: first or second layer of the pair."""
        maps = {slot.parameter: slot.name for slot in self.slots if not slot.name.endswith("_bias")}
        if parameter not in maps:
            return None
        return f"the {'first' if maps[parameter] == 'fc1' else 'second'} of the pair {self.sizes}"

    @property
    def sizes(self) -> str:
        """Describe the widths before, between and after."""
        wide, narrow = (slot.outputs for slot in self.slots if slot.name in {"fc1", "fc2"})
        return f"{narrow} → {wide} → {narrow}"


Structure = Attention | Position | StateSpace | Mlp
"""Structures of composite sites; one class per kind of site."""


def stacked(path: str, parts: Mapping[str, int], *, transposed: bool, bias: bool) -> list[Slot]:
    """Return the slots of a linear layer that contains several maps one after the other, and of its bias.

    Args:
        path: The layer's name below the site.
        parts: Outputs of each map, by name, in the order of storage; together all of the layer's.
        transposed: Whether the weight is stored input first.
        bias: Whether the layer has a bias.
    """
    slots: list[Slot] = []
    start = 0
    for name, outputs in parts.items():
        stop = start + outputs
        slots.append(Slot(name, f"{path}.weight", start, stop, transposed))
        if bias:
            slots.append(Slot(f"{name}_bias", f"{path}.bias", start, stop))
        start = stop
    return slots


def head_sizes(
    outputs: tuple[int, int, int, int], *, heads: int | None, width: int | None
) -> tuple[int, int, int, int] | None:
    """Return (H, G, k, m) for the numbers of outputs of q, k and v and of inputs of the projection.

    These must be H·k, G·k, G·m and H·m, with G a divisor of H; otherwise None.
    """
    q, k, v, inputs = outputs
    if width is None:
        width = None if heads is None or q % heads else q // heads
    if width is None or q % width or k % width:
        return None
    found, groups = q // width, k // width
    if (heads is not None and heads != found) or groups < 1 or found % groups or inputs % found:
        return None
    return (found, groups, width, inputs // found) if v == groups * (inputs // found) else None


def ranges(slots: list[Slot]) -> str:
    """Describe the ranges of one tensor: `q rows 0:192, k rows 192:384`."""
    side = "columns" if slots[0].transposed else "rows"
    return ", ".join(f"{slot.name} {side} {slot.start}:{slot.stop}" for slot in slots)
