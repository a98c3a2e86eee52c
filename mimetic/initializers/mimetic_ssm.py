"""`mimetic_ssm`: a selective state space that begins as causal linear attention.

With exp(Δ A) = 1 and Δ = 1 the recurrence is yₜ = Σ_{s≤t} (cₜᵀ bₛ) xₛ: attention with c as query and b as
key. Trockman et al., "Mimetic Initialization Helps State Space Models Learn to Recall", arXiv 2410.11135,
start there by four components, each of which can be switched off (its parameters then stay as they are):

* `decay`: A = -exp(-power · A_log), with the default A_log. The module keeps its own A = -exp(A_log), so
  what is stored is -power · A_log; A at the start is the same, its gradient is not scaled. The default is
  log n for state n of Mamba, so that A = -1 for its first state, and log U(1, 16) for Mamba-2's heads.
* `step`: no weight on the input, and the bias softplus⁻¹(1) = log(e - 1) = 0.5413 (the paper writes 0.54).
* `recall`: W_c = (W_c' + W_b) / 2 of two default draws, so that W_cᵀ W_b resembles the identity.
* `convolution`: the last tap 1, the others and the bias 0; SiLU follows it all the same.

Of a tensor that holds more than these maps (`x_proj`, Mamba-2's `in_proj`), the other rows stay as they are.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimetic.graph.site import Site
from mimetic.graph.structure import StateSpace
from mimetic.initializers.config import MimeticSsm
from mimetic.initializers.dispatch import made, named
from mimetic.initializers.draw import Moments, ResolvedInit, Streams

STEP_BIAS = math.log(math.e - 1.0)
"""softplus⁻¹(1)."""

_DEFAULT_DECAY = (1.0, 16.0)
"""Mamba-2 draws -A uniformly from here: state-spaces/mamba, modules/mamba2.py."""

_COMPONENTS = {
    "decay": ("decay",),
    "step": ("step", "step_bias"),
    "recall": ("write", "read"),
    "convolution": ("conv", "conv_bias"),
}


@made.register
def _(spec: MimeticSsm) -> frozenset[str]:
    return frozenset(slot for name, slots in _COMPONENTS.items() if getattr(spec, name) for slot in slots)


@named.register
def mimetic_ssm(spec: MimeticSsm, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of a state space; see the module.

    What is drawn is keyed by the site's name, so it does not depend on how the maps are stored.
    """
    wanted = made(spec)

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        maps = {name: t for name, t in _maps(spec, site, streams).items() if wanted is None or name in wanted}
        return {local: _stored(site, local, maps, layer) for local in names}

    arguments = spec.model_dump(exclude={"type"})
    return ResolvedInit(
        name=spec.type_name(),
        arguments=arguments,
        sample=sample,
        moments={local: moments for local in names if (moments := _moments(site, local)) is not None},
    )


def _maps(spec: MimeticSsm, site: Site, streams: Streams) -> dict[str, Tensor]:
    """Return every map of the site, float64, by slot."""
    maps = {"decay": -spec.power * _decay(site, streams)}
    write_SD, other_SD = (_linear(site.slot_shape(slot), streams("", slot)) for slot in ("write", "read"))
    maps |= {"write": write_SD, "read": (other_SD + write_SD) / 2.0}
    maps |= {"step": _full(site, "step", 0.0), "step_bias": _full(site, "step_bias", STEP_BIAS)}
    maps["conv"] = _full(site, "conv", 0.0)
    maps["conv"][..., -1] = 1.0
    if site.slot("conv_bias") is not None:
        maps["conv_bias"] = _full(site, "conv_bias", 0.0)
    return maps


def _decay(site: Site, streams: Streams) -> Tensor:
    """Return the default A_log: log n of each state, or log U(1, 16) of each head."""
    assert isinstance(site.structure, StateSpace)
    shape = site.slot_shape("decay")
    if site.structure.heads is None:
        return torch.arange(1, site.structure.state + 1, dtype=torch.float64).log().expand(shape)
    drawn = torch.empty(shape, dtype=torch.float64)
    return drawn.uniform_(*_DEFAULT_DECAY, generator=streams("", "decay")).log_()


def _linear(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Return rows of a linear layer as torch draws them: U(± fan_in^-½)."""
    bound = shape[1] ** -0.5
    return torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=stream)


def _full(site: Site, slot: str, value: float) -> Tensor:
    return torch.full(site.slot_shape(slot), value, dtype=torch.float64)


def _stored(site: Site, local: str, maps: Mapping[str, Tensor], layer: nn.Module) -> Tensor:
    """Return a stored tensor with the maps it holds written in, and what it holds beside them as it is."""
    assert site.structure is not None
    slots = [slot for slot in site.structure.slots if slot.parameter == local and slot.name in maps]
    shape = site.parameter(local).shape
    if sum(slot.outputs for slot in slots) == shape[0]:
        stored = torch.empty(shape, dtype=torch.float32)
    else:
        current = layer.get_parameter(local).detach()
        whole = getattr(current, "full_tensor", None)  # a shard, under FSDP
        stored = (current if whole is None else whole()).to("cpu", torch.float32, copy=True).contiguous()
    for slot in slots:
        stored[slot.start : slot.stop] = maps[slot.name]
    return stored


def _moments(site: Site, local: str) -> Moments | None:
    """Return the moments of the tensors that are certain; none of those that hold something else too."""
    assert site.structure is not None
    slots = [slot.name for slot in site.structure.slots if slot.parameter == local]
    if slots == ["conv"]:
        share = 1.0 / site.parameter(local).shape[-1]
        return Moments(share, math.sqrt(share * (1.0 - share)), 0.0)
    certain = {"conv_bias": 0.0, "step": 0.0, "step_bias": STEP_BIAS}
    value = certain.get(slots[0]) if len(slots) == 1 else None
    whole = site.slot_shape(slots[0]) == site.parameter(local).shape
    return None if value is None or not whole else Moments(value, 0.0, 0.0)
