"""What an initializer promises and how it draws: the seam between `initializers` and `plan`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Moments:
    """What the entries of a drawn tensor are expected to be, for the plan and for verification.

    Attributes:
        mean: Expected mean of the entries.
        std: Expected root-mean-square deviation from that mean.
        draws: Number of independent values the tensor amounts to; correlated entries count for fewer.
            Zero where the values are certain and `std` must hold to rounding.
    """

    mean: float
    std: float
    draws: float


Streams = Callable[[str, str], torch.Generator]
"""`streams(local, slot)`: the generator of one parameter of the site, keyed by its canonical name.

With an empty `local` it is that of the site itself, keyed by the site's name: what a composite site draws
does not depend on how its maps are stored.
"""


@dataclass(frozen=True, slots=True)
class NetworkInit:
    """What fills many sites at once, one after another, and has to see the network to do so.

    Attributes:
        key: Sites whose draws have the same key are filled together.
        fill: `fill(network, shares, streams)` fills layers of a network in place, norm statistics included,
            and returns a remark by layer. The network is a copy, float32 on the CPU, that holds all other
            draws; `shares` maps layers to their `share`; `streams(parameter, slot)` takes canonical names.
        share: What is the layer's own in it.
        last: Whether it comes after those that are not.
    """

    key: str
    fill: Callable[[nn.Module, Mapping[str, Any], Streams], Mapping[str, str]]
    share: Any = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedInit:
    """A resolved initializer for one site: a promise, and a function that keeps it.

    Attributes:
        name: Registered name, e.g. `gaussian` or `kaiming_normal`.
        arguments: Resolved arguments as plain values; they enter the plan's hash.
        sample: `sample(streams, layer)` returns new contiguous CPU tensors by local parameter name. It
            is pure: it neither writes to the layer nor touches the global random stream.
        moments: Expected moments by local parameter name, where the law is known.
        notes: What was done on the way, for the reader of the plan ("resized 5→9").
        apart: Whether `sample` may run on a thread of its own: it changes no setting of torch either.
        joint: What fills the site together with others, after `sample`; None for draws of one site.
        check: `check(streams, stored, rounding)` returns what does not hold of the tensors that were written
            and should, beyond their moments. They are given in float64 on the CPU by local name; `rounding`
            is the relative one they went through.
    """

    name: str
    arguments: Mapping[str, Any]
    sample: Callable[[Streams, nn.Module], Mapping[str, Tensor]]
    moments: Mapping[str, Moments] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    apart: bool = False
    joint: NetworkInit | None = None
    check: Callable[[Streams, Mapping[str, Tensor], float], Sequence[str]] | None = None
