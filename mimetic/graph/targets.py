"""The tensors of a network that rules can fill: parameters, and weights that layers compute from some.

A computed weight replaces the parameters from which it is computed: it has one name, and they are its parts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mimetic.graph.computed import Computed, computed_in, copied
from mimetic.graph.memory import Memory
from mimetic.graph.names import Walked, joined, owners


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor that a rule can fill.

    Attributes:
        tensor: The parameter, or what describes the computed weight; its `layer` and `local` name are those
            of its first owner.
        aliases: Its other canonical names.
        stored: The parameter, or those from which the weight is computed, by canonical name.
        same: Every object that is the parameter: several, if they share memory without being one.
        obstacle: Why no values can be written to it; None if they can.
    """

    tensor: nn.Parameter | Computed
    aliases: tuple[str, ...]
    stored: Mapping[str, nn.Parameter]
    same: tuple[nn.Parameter, ...] = ()
    obstacle: str | None = None

    @property
    def like(self) -> torch.Tensor:
        """Return a tensor of its shape and dtype."""
        return self.tensor.like if isinstance(self.tensor, Computed) else self.tensor

    def current(self) -> torch.Tensor:
        """Return a copy, on the CPU, of what its layer uses now in evaluation mode."""
        return self.tensor.current() if isinstance(self.tensor, Computed) else copied(self.tensor)


def targets(walked: Iterable[Walked]) -> dict[str, Target]:
    """Return the targets of a network by canonical name.

    Raises:
        UserError: If two different parameters have one canonical name.
    """
    # 1. Every parameter once, and the computed weights of which each is a part.
    steps = list(walked)
    memory = Memory()
    parameters = owners(steps, memory)
    names = {memory.identity(p): name for name, (p, _) in parameters.items()}
    computed = _computed(steps)
    parts: dict[str, list[str]] = {}  # targets by the names of the parameters in them
    for name, (found, _) in computed.items():
        for parameter in found.stored.values():
            parts.setdefault(names[memory.identity(parameter)], []).append(name)
    # 2. What shares memory with something else cannot be written by itself.
    overlaps = memory.overlapping({name: p for name, (p, _) in parameters.items()})

    def obstacle(stored: Mapping[str, nn.Parameter], owner: str) -> str | None:
        for name, tensor in stored.items():
            others = [other for other in parts.get(name, ()) if other != owner]
            found = _obstacle(tensor, memory, shared=others[0] if others else overlaps.get(name))
            if found is not None:
                return found
        return None

    # 3. A computed weight is one target, in place of its parts.
    made: dict[str, Target] = {}
    for name, (found, aliases) in computed.items():
        stored = {names[memory.identity(p)]: p for p in found.stored.values()}
        reason = found.obstacle if found.obstacle is not None else obstacle(stored, name)
        made[name] = Target(found, aliases, stored, tuple(stored.values()), reason)
    for name, (parameter, aliases) in parameters.items():
        if name not in parts:
            stored = {name: parameter}
            same = tuple(memory.same(parameter))
            made[name] = Target(parameter, aliases, stored, same, obstacle(stored, name))
    return made


def _obstacle(tensor: nn.Parameter, memory: Memory, *, shared: str | None) -> str | None:
    """Return why no values can be written to a parameter that shares memory with another, or does not."""
    if shared is not None:
        return f"it shares memory with `{shared}`, but is another view of it or computed from it"
    if memory.overlaps_itself(tensor):
        return "several of its entries are one number in memory, as after `expand`; copy it"
    return None


def _computed(steps: list[Walked]) -> dict[str, tuple[Computed, tuple[str, ...]]]:
    """Return the computed weights and their other names, by the name at the first owner."""
    first: dict[tuple[int, str], str] = {}
    found: dict[str, tuple[Computed, tuple[str, ...]]] = {}
    for _, layer, module in steps:
        for one in computed_in(module):
            name = joined(layer, one.local)
            known = first.setdefault((id(module), one.local), name)
            if known == name:
                found.setdefault(name, (one, ()))
            else:
                found[known] = (found[known][0], (*found[known][1], name))
    return found
