"""`mimetic_ssm`: a selective state space initialized as causal linear attention.

With exp(Δ A) = 1 and Δ = 1 the recurrence is yₜ = Σ_{s≤t} (cₜᵀ bₛ) xₛ: attention with c as query and b as
key. Trockman et al., "Mimetic Initialization Helps State Space Models Learn to Recall", arXiv 2410.11135,
start there by four components, each of which can be switched off (its parameters then stay as they are):

* `decay`: A = -exp(-power · A_log), with the default A_log. The module computes A = -exp(A_log), so
  -power · A_log is stored; the initial A is the same, its gradient is not scaled. The default is log n for
  state n of Mamba (A = -1 for its first state), and log U(1, 16) for Mamba-2's heads.
* `step`: no weight on the input, and the bias softplus⁻¹(1) = log(e - 1) = 0.5413 (the paper writes 0.54).
* `recall`: W_c = (W_c' + W_b) / 2 of two default draws: W_cᵀ W_b resembles the identity.
* `convolution`: the last tap 1, the others and the bias 0; SiLU still follows.

Of a tensor that contains more than these maps (`x_proj`, Mamba-2's `in_proj`), the other rows stay as they
are.
"""

import math

import torch
from torch import Generator, Tensor

from mimetic.covariance.context import Context
from mimetic.graph.site import Site
from mimetic.graph.structure import StateSpace
from mimetic.initializers.composite import MapStreams, composite_init
from mimetic.initializers.config import MimeticSsm
from mimetic.initializers.resolved import Moments, ResolvedInit

STEP_BIAS = math.log(math.e - 1.0)
"""softplus⁻¹(1)."""

_DEFAULT_DECAY = (1.0, 16.0)
"""Mamba-2 draws -A uniformly from here: state-spaces/mamba, modules/mamba2.py."""


def mimetic_ssm(spec: MimeticSsm, site: Site, context: Context) -> ResolvedInit:
    """Resolve a state space, keyed by the site's name: independent of the storage of its maps."""
    moments = {local: m for local in context.parameters if (m := _moments(site, local)) is not None}
    return composite_init(spec, site, context, lambda stream: _maps(spec, site, stream), moments=moments)


def _maps(spec: MimeticSsm, site: Site, stream: MapStreams) -> dict[str, Tensor]:
    """Return every map of the site, float64, by slot."""

    def full(slot: str, value: float) -> Tensor:
        return torch.full(site.slot_shape(slot), value, dtype=torch.float64)

    write_SD, other_SD = (_linear(site.slot_shape(slot), stream(slot)) for slot in ("write", "read"))
    conv_D1T = full("conv", 0.0)
    conv_D1T[..., -1] = 1.0
    maps = {
        "decay": -spec.power * _default_decay(site, stream),
        "write": write_SD,
        "read": (other_SD + write_SD) / 2.0,
        "step": full("step", 0.0),
        "step_bias": full("step_bias", STEP_BIAS),
        "conv": conv_D1T,
    }
    return maps if site.slot("conv_bias") is None else {**maps, "conv_bias": full("conv_bias", 0.0)}


def _default_decay(site: Site, stream: MapStreams) -> Tensor:
    """Return the default A_log: log n of each state, or log U(1, 16) of each head."""
    assert isinstance(site.structure, StateSpace)
    shape = site.slot_shape("decay")
    if site.structure.heads is None:
        return torch.arange(1, site.structure.state + 1, dtype=torch.float64).log().expand(shape)
    drawn = torch.empty(shape, dtype=torch.float64)
    return drawn.uniform_(*_DEFAULT_DECAY, generator=stream("decay")).log_()


def _linear(shape: tuple[int, ...], stream: Generator) -> Tensor:
    """Return rows of a linear layer as torch draws them: U(± fan_in^-½)."""
    bound = shape[1] ** -0.5
    return torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=stream)


def _moments(site: Site, local: str) -> Moments | None:
    """Return the moments of tensors with fixed values; None for those that contain other maps as well."""
    assert site.structure is not None
    slots = [slot.name for slot in site.structure.slots if slot.parameter == local]
    if slots == ["conv"]:
        share = 1.0 / site.parameter(local).shape[-1]
        return Moments(share, math.sqrt(share * (1.0 - share)), 0.0)
    fixed = {"conv_bias": 0.0, "step": 0.0, "step_bias": STEP_BIAS}
    value = fixed.get(slots[0]) if len(slots) == 1 else None
    fills_tensor = site.slot_shape(slots[0]) == site.parameter(local).shape
    return None if value is None or not fills_tensor else Moments(value, 0.0, 0.0)
