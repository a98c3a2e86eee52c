"""Initializers of attention: from their sections to maps of queries, keys, values and the projection."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from mimetic.covariance.atlas import find_entry
from mimetic.covariance.context import Context
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.files import expand_home
from mimetic.graph.site import Site
from mimetic.graph.structure import Attention
from mimetic.initializers import config
from mimetic.initializers.attention_maps import (
    NearIdentity,
    query_key_maps,
    semi_orthogonal_heads,
    value_out_maps,
)
from mimetic.initializers.attention_statistics import (
    AttentionStatistics,
    Values,
    attention_sites,
    load_attention,
    measure_attention,
)
from mimetic.initializers.composite import MapStreams, composite_init
from mimetic.initializers.resolved import Moments, ResolvedInit, not_trained, source_network

_PUBLISHED = Values(0.7, 0.7, 0.4, 0.4)
"""The numbers of the public helpers, of models of images."""


def mimetic_attention(spec: config.MimeticAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve W_Q·W_Kᵀ ≈ αZ + βI by head and W_V·W_out ≈ αZ − βI (arXiv 2305.09828).

    With `from`, α and β are those of its attention at our depth. A plan from a network that is not trained
    yet can be shown, but not applied.

    Raises:
        UserError: If `legacy_layout` is given where values are not square, or `from` has no such statistics.
    """
    attention = attention_of(site)
    if spec.legacy_layout and site.slot_shape("v") != site.slot_shape("out")[::-1]:
        raise UserError(
            f"{site.layer}: `legacy_layout` needs as many values as inputs, but their map is "
            f"{site.slot_shape('v')}; leave it out",
            code="MIM-I031",
        )
    # The four numbers: given, published, or measured at our depth.
    queries, values = input_widths(site)
    products, notes = _products(spec, site, context)

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        if products is None:
            what = f"{site.layer}: the network of `from`"
            raise not_trained(what, "its attention is unknown", code="MIM-I124")
        query_key = NearIdentity(products.qk_noise, products.qk_diag, spec.noise)
        value_out = NearIdentity(products.vp_noise, -products.vp_diag, spec.noise)
        q, k = query_key_maps(attention, queries, query_key, stream)
        v, out = value_out_maps(attention, values, value_out, stream, legacy_layout=spec.legacy_layout)
        return {"q": q, "k": k, "v": v, "out": out}

    resolved = dict.fromkeys(Values._fields, "pending") if products is None else products._asdict()
    return attention_init(spec, site, context, maps, notes=notes, **{**resolved, **_given(spec)})


def _products(
    spec: config.MimeticAttention, site: Site, context: Context
) -> tuple[Values | None, tuple[str, ...]]:
    """Return the four numbers, None before their network is trained, and a note of where they are from.

    Raises:
        UserError: If they are not available, or both maps of a product would be zero.
    """
    if spec.from_ is None:
        return _PUBLISHED._replace(**_given(spec)), ()
    found = _statistics(spec, site, context)
    if found is None:
        return None, (f"depth {site.depth:.2f} of the attention of {spec.from_.display_name}",)
    values, note = found.at(site.depth)
    values = values._replace(**_given(spec))
    if values[:2] == (0.0, 0.0) or values[2:] == (0.0, 0.0):
        raise UserError(
            f"{site.layer}: {note}: a product of its attention is zero, and both maps would stay zero; "
            "choose another network, or give the numbers",
            code="MIM-I125",
        )
    return values, (note,)


def _given(spec: config.MimeticAttention) -> dict[str, float]:
    """Return the numbers that the section gives."""
    return {name: getattr(spec, name) for name in Values._fields if getattr(spec, name) is not None}


def _statistics(spec: config.MimeticAttention, site: Site, context: Context) -> AttentionStatistics | None:
    """Return the statistics that `from` names; None before their network is trained."""
    ref = spec.from_
    assert ref is not None
    if ref.atlas is not None or ref.file is not None:
        path = expand_home(str(ref.file)) if ref.atlas is None else find_entry(ref.atlas).path
        return replace(load_attention(path), origin=ref.display_name)
    network = source_network(spec, site, context)
    if network.model is None:
        attention_sites(network)  # reports a network without attention before it is trained
        return None
    return _measured(network)


@lru_cache(maxsize=2)
def _measured(network: TrainedNetwork) -> AttentionStatistics:
    """Return the statistics of a network, measured once for all layers of a plan."""
    return measure_attention(network)


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
    """Return an initializer that draws maps; biases become zeros if the section has `bias: zeros`."""
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
