"""The draws of initializers that act on attentions: from their arguments to tensors."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.covariance.linalg import one_thread
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.graph.structure import Attention
from mimetic.initializers.assembly import assembled, read_maps
from mimetic.initializers.attention import (
    Stream,
    query_key_maps,
    semi_orthogonal_heads,
    value_out_maps,
    zeros_of,
)
from mimetic.initializers.attention_promises import (
    Maps,
    Promise,
    exact_promise,
    impulse_promise,
    query_key_promise,
    semi_orthogonal_promise,
    value_out_promise,
)
from mimetic.initializers.config import Bias, ConditionedAttention, ImpulseAttention, MimeticAttention
from mimetic.initializers.dispatch import made, named
from mimetic.initializers.draw import Moments, ResolvedInit, Streams
from mimetic.initializers.impulse import OFFSETS, impulse_factors, impulse_logits, principal, pulled_back
from mimetic.initializers.parallel import side_by_side
from mimetic.initializers.positions import check_sincos_width
from mimetic.models.sincos import sincos2d

_INNER = ("q", "k", "v")
_ALL = (*_INNER, "out")


@made.register
def _(spec: MimeticAttention) -> frozenset[str]:
    return _with_biases(_ALL, spec.bias)


@made.register
def _(spec: ImpulseAttention) -> frozenset[str]:
    return _with_biases(_ALL, spec.bias)


@made.register
def _(spec: ConditionedAttention) -> frozenset[str]:
    return _with_biases(_INNER, spec.bias)


@named.register
def mimetic_attention(spec: MimeticAttention, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of the four maps of an attention (arXiv 2305.09828).

    Raises:
        UserError: If `legacy_layout` is asked for where values are not square.
    """
    attention = _attention(site)
    if spec.legacy_layout and site.slot_shape("v") != site.slot_shape("out")[::-1]:
        message = f"{site.layer}: `legacy_layout` needs as many values as inputs, "
        raise UserError(message + f"but their map is {site.slot_shape('v')}; leave it out")
    queries, values = _widths(site)

    def maps(stream: Stream) -> dict[str, Tensor]:
        q, k = query_key_maps(
            attention, queries, noise=spec.qk_noise, diagonal=spec.qk_diag, law=spec.noise, stream=stream
        )
        v, out = value_out_maps(
            attention,
            values,
            noise=spec.vp_noise,
            diagonal=spec.vp_diag,
            law=spec.noise,
            stream=stream,
            legacy_layout=spec.legacy_layout,
        )
        return {"q": q, "k": k, "v": v, "out": out}

    qk = query_key_promise(attention, queries, noise=spec.qk_noise, diagonal=spec.qk_diag, law=spec.noise)
    vp = value_out_promise(
        attention,
        values,
        noise=spec.vp_noise,
        diagonal=spec.vp_diag,
        law=spec.noise,
        legacy_layout=spec.legacy_layout,
    )
    return _draw(spec, site, names, maps, (qk, vp))


@named.register
def impulse_attention(spec: ImpulseAttention, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of an attention whose heads look at neighbours (arXiv 2505.19985).

    Raises:
        UserError: If the grid of the tokens is not known, or heads share keys.
    """
    attention = _attention(site)
    grid = attention.grid if spec.grid is None else spec.grid
    if grid is None:
        message = (
            f"{site.layer}: impulse_attention needs the grid of the tokens, and the model has no table of "
        )
        raise UserError(message + "positions that tells it; say it, e.g. `grid: [8, 8]`")
    if attention.kv_heads < attention.heads:
        message = f"{site.layer}: impulse_attention gives each head a neighbour of its own, but here "
        raise UserError(message + f"{attention.heads} heads share {attention.kv_heads} keys")
    (inputs, keys), values = _widths(site)
    if inputs != keys:
        raise UserError(f"{site.layer}: impulse_attention needs keys of the width of the queries")
    check_sincos_width(site, inputs, spec.layout)

    def positions() -> tuple[Tensor, Tensor, Tensor]:
        table_ND = sincos2d(grid, inputs, layout=spec.layout, temperature=spec.temperature)
        with one_thread():
            return principal(functional.layer_norm(table_ND, (inputs,)), attention.head_dim)

    def logits(index: int, stream: Stream) -> Tensor:
        return impulse_logits(grid, OFFSETS[index % len(OFFSETS)], stream(f"impulse.head{index}"))

    def maps(stream: Stream) -> dict[str, Tensor]:
        basis = positions()

        def head(index: int) -> tuple[Tensor, Tensor]:
            return impulse_factors(basis, logits(index, stream), rank=attention.head_dim, norm=spec.norm)

        pairs = list(side_by_side(head, range(attention.heads)))
        v, out = value_out_maps(
            attention, values, noise=spec.vp_noise, diagonal=spec.vp_diag, law=spec.noise, stream=stream
        )
        q, k = (torch.cat([pair[i].T for pair in pairs]) for i in range(2))
        return {"q": q, "k": k, "v": v, "out": out}

    def targets(stream: Stream) -> list[Tensor]:
        basis = positions()
        return [pulled_back(basis, logits(index, stream)) for index in range(attention.heads)]

    qk = impulse_promise(attention, targets, norm=spec.norm)
    vp = value_out_promise(attention, values, noise=spec.vp_noise, diagonal=spec.vp_diag, law=spec.noise)
    rows, columns = grid if attention.grid is None else attention.grid
    taken = (
        f"the rule takes the tokens as {grid[0]}×{grid[1]}, where the table of positions has {rows}×{columns}"
    )
    notes = () if grid == (rows, columns) else (taken,)
    return _draw(spec, site, names, maps, (qk, vp), notes=notes, grid=list(grid))


@named.register
def conditioned_attention(spec: ConditionedAttention, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of semi-orthogonal queries and keys, and of values that are the identity.

    The projection is not spoken of in the paper (Saratchandran and Lucey, ICLR 2026), and stays.
    """
    attention = _attention(site)
    (queries, keys), _ = _widths(site)

    def identity() -> Tensor:
        return torch.eye(*site.slot_shape("v"), dtype=torch.float64)

    def maps(stream: Stream) -> dict[str, Tensor]:
        heads = partial(semi_orthogonal_heads, head_dim=attention.head_dim, stream=stream)
        return {
            "q": heads(attention.heads, inputs=queries, name="q"),
            "k": heads(attention.kv_heads, inputs=keys, name="k"),
            "v": identity(),
        }

    promises = (
        semi_orthogonal_promise("q", attention.heads),
        semi_orthogonal_promise("k", attention.kv_heads),
        exact_promise("v", "W_V is the identity", identity),
    )
    return _draw(spec, site, names, maps, promises)


def _draw(
    spec: MimeticAttention | ImpulseAttention | ConditionedAttention,
    site: Site,
    names: tuple[str, ...],
    maps: Callable[[Stream], Maps],
    promises: tuple[Promise, ...],
    *,
    notes: tuple[str, ...] = (),
    **found: object,
) -> ResolvedInit:
    """Return a draw that makes maps and stores them; biases are zeros where the rule says so.

    Of its promises those are checked whose maps it stores, and the plan names them.
    """
    zeros = sorted(
        name for name in made(spec) or () if name.endswith("_bias") and site.slot(name) is not None
    )

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        biases = zeros_of(zeros, site.slot_shape)
        if all(_only_biases(site, name) for name in names):
            return assembled(site, biases, names, layer)
        return assembled(site, {**maps(lambda slot: streams("", slot)), **biases}, names, layer)

    stored = {slot.name for slot in _attention(site).slots if slot.parameter in names}
    checked = [promise for promise in promises if stored.issuperset(promise.slots)]

    def check(streams: Streams, tensors: Mapping[str, Tensor], rounding: float) -> list[str]:
        found = read_maps(site, tensors)
        stream: Stream = lambda slot: streams("", slot)  # noqa: E731
        return [promise.said for promise in checked if not promise.kept(stream, found, rounding)]

    return ResolvedInit(
        name=spec.type_name(),
        arguments={**spec.model_dump(exclude={"type"}), **found},
        sample=sample,
        moments={name: Moments(0.0, 0.0, 0.0) for name in names if _only_biases(site, name)},
        notes=(*notes, *(f"checked after writing: {promise.said}" for promise in checked)),
        check=check if checked else None,
    )


def _only_biases(site: Site, name: str) -> bool:
    assert site.structure is not None
    return all(slot.name.endswith("_bias") for slot in site.structure.slots if slot.parameter == name)


def _with_biases(maps: tuple[str, ...], bias: Bias) -> frozenset[str]:
    return frozenset(maps) if bias == "keep" else frozenset((*maps, *(f"{name}_bias" for name in maps)))


def _attention(site: Site) -> Attention:
    if not isinstance(site.structure, Attention):
        raise UserError(f"{site.layer}: this initializer begins attention, and this is a {site.kind} site")
    return site.structure


def _widths(site: Site) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the inputs of queries and keys, and the inputs of values with the outputs of the projection."""
    shapes = {name: site.slot_shape(name) for name in _ALL}
    return (shapes["q"][1], shapes["k"][1]), (shapes["v"][1], shapes["out"][0])
