"""Initializers of attention: from their sections to maps of queries, keys, values and the projection."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mimetic.covariance.context import Context
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.graph.structure import Attention
from mimetic.initializers import config
from mimetic.initializers.attention_maps import (
    NearIdentity,
    query_key_maps,
    semi_orthogonal_heads,
    value_out_maps,
)
from mimetic.initializers.composite import MapStreams, composite_init
from mimetic.initializers.resolved import Moments, ResolvedInit


def mimetic_attention(spec: config.MimeticAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve W_Q·W_Kᵀ ≈ αZ + βI by head and W_V·W_out ≈ αZ − βI (arXiv 2305.09828).

    Raises:
        UserError: If `legacy_layout` is given where values are not square.
    """
    attention = attention_of(site)
    if spec.legacy_layout and site.slot_shape("v") != site.slot_shape("out")[::-1]:
        raise UserError(
            f"{site.layer}: `legacy_layout` needs as many values as inputs, but their map is "
            f"{site.slot_shape('v')}; leave it out",
            code="MIM-I031",
        )
    queries, values = input_widths(site)
    query_key = NearIdentity(spec.qk_noise, spec.qk_diag, spec.noise)
    value_out = NearIdentity(spec.vp_noise, -spec.vp_diag, spec.noise)

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        q, k = query_key_maps(attention, queries, query_key, stream)
        v, out = value_out_maps(attention, values, value_out, stream, legacy_layout=spec.legacy_layout)
        return {"q": q, "k": k, "v": v, "out": out}

    return attention_init(spec, site, context, maps)


def conditioned_attention(spec: config.ConditionedAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve semi-orthogonal queries and keys, and values that are the identity.

    The paper (Saratchandran and Lucey, ICLR 2026) does not mention the projection; it is left as it is.
    Its values are W_V = I (d, m) of every head, the same first coordinates.
    """
    attention = attention_of(site)
    (queries, keys), _ = input_widths(site)

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        def heads(name: str, count: int, inputs: int) -> Tensor:
            return semi_orthogonal_heads(
                count, attention.head_dim, inputs, lambda head: stream(f"{name}.head{head}")
            )

        return {
            "q": heads("q", attention.heads, queries),
            "k": heads("k", attention.kv_heads, keys),
            "v": _identity_values(spec, attention, site.slot_shape("v")),
        }

    return attention_init(spec, site, context, maps)


def _identity_values(
    spec: config.ConditionedAttention, attention: Attention, shape: tuple[int, ...]
) -> Tensor:
    """Return the map v (G·m, d) of the identity, of each head or of all together."""
    if spec.values == "joint":
        return torch.eye(*shape, dtype=torch.float64)
    return torch.eye(attention.value_dim, shape[1], dtype=torch.float64).repeat(attention.kv_heads, 1)


def attention_init(
    spec: config.AttentionInit,
    site: Site,
    context: Context,
    sample_maps: Callable[[MapStreams], Mapping[str, Tensor]],
    *,
    notes: tuple[str, ...] = (),
    **resolved: object,
) -> ResolvedInit:
    """Return an initializer that draws maps; biases become zeros where the section says so."""
    only_biases = {
        local
        for local in context.parameters
        if all(slot.name.endswith("_bias") for slot in attention_of(site).slots if slot.parameter == local)
    }

    def sample(stream: MapStreams) -> dict[str, Tensor]:
        zeros = zero_biases(spec, site)
        if only_biases.issuperset(context.parameters):  # the maps take seconds to factor
            return zeros
        return {**sample_maps(stream), **zeros}

    moments = dict.fromkeys(only_biases, Moments(0.0, 0.0, 0.0))
    return composite_init(spec, site, context, sample, moments=moments, notes=notes, **resolved)


def zero_biases(spec: config.AttentionInit, site: Site) -> dict[str, Tensor]:
    """Return zeros for the biases that an initializer fills, by slot."""
    biases = (slot for slot in spec.filled_slots - spec.maps if site.slot(slot) is not None)
    return {name: torch.zeros(site.slot_shape(name)) for name in biases}


def attention_of(site: Site) -> Attention:
    """Return the structure of an attention.

    Raises:
        UserError: If the site is of another kind.
    """
    if not isinstance(site.structure, Attention):
        raise UserError(
            f"{site.layer}: this initializer is for attention, and this is a {site.kind} site",
            code="MIM-I035",
        )
    return site.structure


def input_widths(site: Site) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the inputs of queries and keys, and the inputs of values with the outputs of the projection."""
    shapes = {name: site.slot_shape(name) for name in ("q", "k", "v", "out")}
    return (shapes["q"][1], shapes["k"][1]), (shapes["v"][1], shapes["out"][0])
