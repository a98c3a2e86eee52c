"""Initializers of attention: from their sections to maps of queries, keys, values and the projection."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.covariance.context import Context
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.graph.structure import Attention
from mimetic.initializers import config
from mimetic.initializers.attention_maps import (
    OFFSETS,
    NearIdentity,
    impulse_factors,
    impulse_logits,
    principal,
    query_key_maps,
    semi_orthogonal_heads,
    value_out_maps,
)
from mimetic.initializers.composite import MapStreams, composite_init
from mimetic.initializers.positions import check_sincos_width
from mimetic.initializers.resolved import Moments, ResolvedInit
from mimetic.models.sincos import sincos2d
from mimetic.threads import one_thread, side_by_side


def mimetic_attention(spec: config.MimeticAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve W_Q·W_Kᵀ ≈ αZ + βI by head and W_V·W_out ≈ αZ − βI (arXiv 2305.09828).

    Raises:
        UserError: If `legacy_layout` is given where values are not square.
    """
    attention = _attention(site)
    if spec.legacy_layout and site.slot_shape("v") != site.slot_shape("out")[::-1]:
        raise UserError(
            f"{site.layer}: `legacy_layout` needs as many values as inputs, but their map is "
            f"{site.slot_shape('v')}; leave it out",
            code="MIM-I031",
        )
    queries, values = _widths(site)
    query_key = NearIdentity(spec.qk_noise, spec.qk_diag, spec.noise)
    value_out = NearIdentity(spec.vp_noise, -spec.vp_diag, spec.noise)

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        q, k = query_key_maps(attention, queries, query_key, stream)
        v, out = value_out_maps(attention, values, value_out, stream, legacy_layout=spec.legacy_layout)
        return {"q": q, "k": k, "v": v, "out": out}

    return _attention_init(spec, site, context, maps)


def impulse_attention(spec: config.ImpulseAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve heads that attend to neighbours (arXiv 2505.19985).

    Raises:
        UserError: If the grid of the tokens is not known, or heads share keys.
    """
    attention = _attention(site)
    grid = attention.grid if spec.grid is None else spec.grid
    if grid is None:
        raise UserError(
            f"{site.layer}: impulse_attention needs the grid of the tokens, and the model has no position "
            "table with one; give it, e.g. `grid: [8, 8]`",
            code="MIM-I032",
        )
    if attention.kv_heads < attention.heads:
        raise UserError(
            f"{site.layer}: impulse_attention gives each head another neighbour, but here {attention.heads} "
            f"heads share {attention.kv_heads} keys",
            code="MIM-I033",
        )
    (inputs, keys), values = _widths(site)
    if inputs != keys:
        raise UserError(
            f"{site.layer}: impulse_attention needs keys of the width of the queries", code="MIM-I034"
        )
    check_sincos_width(site, inputs, spec.layout)
    value_out = NearIdentity(spec.vp_noise, -spec.vp_diag, spec.noise)

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        table_ND = sincos2d(grid, inputs, layout=spec.layout, temperature=spec.temperature)
        with one_thread():
            basis = principal(functional.layer_norm(table_ND, (inputs,)), attention.head_dim)

        def head(index: int) -> tuple[Tensor, Tensor]:
            logits_NN = impulse_logits(grid, OFFSETS[index % len(OFFSETS)], stream(f"impulse.head{index}"))
            return impulse_factors(basis, logits_NN, rank=attention.head_dim, norm=spec.norm)

        pairs = side_by_side(head, range(attention.heads))
        v, out = value_out_maps(attention, values, value_out, stream)
        q, k = (torch.cat([pair[i].T for pair in pairs]) for i in range(2))
        return {"q": q, "k": k, "v": v, "out": out}

    rows, columns = grid if attention.grid is None else attention.grid
    differs = (
        f"the rule takes the tokens as {grid[0]}×{grid[1]}, where the table of positions has {rows}×{columns}"
    )
    notes = () if grid == (rows, columns) else (differs,)
    return _attention_init(spec, site, context, maps, notes=notes, grid=list(grid))


def conditioned_attention(spec: config.ConditionedAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve semi-orthogonal queries and keys, and values that are the identity.

    The paper (Saratchandran and Lucey, ICLR 2026) does not mention the projection; it is left as it is.
    """
    attention = _attention(site)
    (queries, keys), _ = _widths(site)

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        def heads(name: str, count: int, inputs: int) -> Tensor:
            return semi_orthogonal_heads(
                count, attention.head_dim, inputs, lambda head: stream(f"{name}.head{head}")
            )

        return {
            "q": heads("q", attention.heads, queries),
            "k": heads("k", attention.kv_heads, keys),
            "v": torch.eye(*site.slot_shape("v"), dtype=torch.float64),
        }

    return _attention_init(spec, site, context, maps)


def _attention_init(
    spec: config.AttentionInit,
    site: Site,
    context: Context,
    sample_maps: Callable[[MapStreams], Mapping[str, Tensor]],
    *,
    notes: tuple[str, ...] = (),
    **resolved: object,
) -> ResolvedInit:
    """Return an initializer that draws maps; biases become zeros where the section says so."""
    biases = sorted(slot for slot in spec.filled_slots - spec.maps if site.slot(slot) is not None)
    only_biases = {
        local
        for local in context.parameters
        if all(slot.name.endswith("_bias") for slot in _attention(site).slots if slot.parameter == local)
    }

    def sample(stream: MapStreams) -> dict[str, Tensor]:
        zeros = {name: torch.zeros(site.slot_shape(name)) for name in biases}
        if only_biases.issuperset(context.parameters):  # the maps take seconds to factor
            return zeros
        return {**sample_maps(stream), **zeros}

    moments = dict.fromkeys(only_biases, Moments(0.0, 0.0, 0.0))
    return composite_init(spec, site, context, sample, moments=moments, notes=notes, **resolved)


def _attention(site: Site) -> Attention:
    if not isinstance(site.structure, Attention):
        raise UserError(
            f"{site.layer}: this initializer is for attention, and this is a {site.kind} site",
            code="MIM-I035",
        )
    return site.structure


def _widths(site: Site) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the inputs of queries and keys, and the inputs of values with the outputs of the projection."""
    shapes = {name: site.slot_shape(name) for name in ("q", "k", "v", "out")}
    return (shapes["q"][1], shapes["k"][1]), (shapes["v"][1], shapes["out"][0])
