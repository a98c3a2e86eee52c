"""Maps of attention that act as trained ones do: near the identity, or well conditioned.

Row-vector convention: W_Q, W_K are (d, k) and act as Q = X·W_Q; a stored linear weight is the transpose.
All functions are pure, in float64; streams are keyed by what a map is, not by how it is stored.

Trockman and Kolter, *Mimetic Initialization of Self-Attention Layers*, arXiv 2305.09828, §3 (products,
signs and the split by singular values); Saratchandran and Lucey, ICLR 2026 (conditioned).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from mimetic.covariance.linalg import one_thread
from mimetic.graph.structure import Attention
from mimetic.initializers.factors import balanced
from mimetic.initializers.parallel import side_by_side

Noise = Literal["uniform", "normal"]
Stream = Callable[[str], Generator]
"""`stream("qk.head0")`: the generator of one piece."""


def near_identity(
    rows: int, columns: int, *, noise: float, diagonal: float, law: Noise, stream: Generator
) -> Tensor:
    """Return A = noise·Z + diagonal·I (M, N), the entries of Z independent with variance 1/√(MN).

    Uniform on ±√(3/d) as the public helper has it, or normal as the paper. Where A is not square, I has
    ones along its diagonal.
    """
    shape = (rows, columns)
    if law == "uniform":
        unit = (2.0 * torch.rand(shape, generator=stream, dtype=torch.float64) - 1.0) * math.sqrt(3.0)
    else:
        unit = torch.randn(shape, generator=stream, dtype=torch.float64)
    eye = torch.eye(rows, columns, dtype=torch.float64)
    size: float = noise / math.sqrt(math.sqrt(rows * columns))
    return size * unit + diagonal * eye


def query_key_maps(
    attention: Attention,
    widths: tuple[int, int],
    *,
    noise: float,
    diagonal: float,
    law: Noise,
    stream: Stream,
) -> tuple[Tensor, Tensor]:
    """Return maps q (H·k, d_q) and k (G·k, d_k) with W_Q·W_Kᵀ the best rank-k approximation of A by head.

    A = noise·Z + diagonal·I is drawn anew for every head. Heads that share a key (an extension of ours)
    have the keys that serve all of them best: their targets are stacked, [A_1; …; A_r], and factored
    together, the sizes shared out so that a query head and a key head are as large as each other.

    Args:
        attention: Heads and their widths.
        widths: Inputs d_q and d_k of queries and keys.
        noise: Size of Z.
        diagonal: Factor of I.
        law: Law of Z.
        stream: Streams by head, `qk.head<h>`.
    """
    shared = attention.heads // attention.kv_heads

    def group(first: int) -> tuple[Tensor, Tensor]:
        target = query_key_target(
            range(first, first + shared), widths, noise=noise, diagonal=diagonal, law=law, stream=stream
        )
        left_MK, right_KN = balanced(target, attention.head_dim)
        size = shared**0.25
        queries = [part_DK.T for part_DK in (left_MK * size).chunk(shared)]
        return torch.cat(queries), right_KN / size

    pairs = list(side_by_side(group, range(0, attention.heads, shared)))
    return torch.cat([q for q, _ in pairs]), torch.cat([k for _, k in pairs])


def query_key_target(
    heads: Sequence[int],
    widths: tuple[int, int],
    *,
    noise: float,
    diagonal: float,
    law: Noise,
    stream: Stream,
) -> Tensor:
    """Return A of heads that share their keys, one above the other."""
    return torch.cat(
        [
            near_identity(*widths, noise=noise, diagonal=diagonal, law=law, stream=stream(f"qk.head{head}"))
            for head in heads
        ]
    )


def value_out_maps(
    attention: Attention,
    widths: tuple[int, int],
    *,
    noise: float,
    diagonal: float,
    law: Noise,
    stream: Stream,
    legacy_layout: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return maps v (G·m, d_v) and out (d, H·m) with W_V·W_out = A = noise·Z − diagonal·I.

    Where attention is the identity (every head returns its own values), the layer then is x ↦ x·A, exactly
    where G·m is at least the rank of A, else its best approximation. Heads that share values (an extension
    of ours) have a projection each, of which every one gives an equal part.

    Args:
        attention: Heads and their widths.
        widths: Inputs d_v of the values, outputs d of the projection.
        noise: Size of Z.
        diagonal: Factor of I, subtracted.
        law: Law of Z.
        stream: Stream of the layer, `vp`.
        legacy_layout: Return the factors untransposed, as five of six public copies of the helper store
            them: the layer is then x ↦ x·(R·L)ᵀ, of the same trace, with a diagonal ordered by coordinate.
    """
    target = near_identity(*widths, noise=noise, diagonal=-diagonal, law=law, stream=stream("vp"))
    shared = attention.heads // attention.kv_heads
    with one_thread():
        left_MK, right_KN = balanced(target, attention.kv_heads * attention.value_dim)
    if legacy_layout:
        return left_MK, right_KN
    size = math.sqrt(shared)
    by_group_GMN = right_KN.view(attention.kv_heads, attention.value_dim, -1)
    by_head_HMN = by_group_GMN.repeat_interleave(shared, dim=0)
    return left_MK.T / size, by_head_HMN.flatten(0, 1).T / size


def semi_orthogonal(rows: int, columns: int, stream: Generator) -> Tensor:
    """Return W (M, N) with WᵀW = I, or WWᵀ = I where it is wide, distributed uniformly."""
    tall = torch.randn((max(rows, columns), min(rows, columns)), generator=stream, dtype=torch.float64)
    q, r = torch.linalg.qr(tall)
    signed: Tensor = q * r.diagonal().sign()
    return signed if rows >= columns else signed.T


def semi_orthogonal_heads(heads: int, head_dim: int, inputs: int, *, name: str, stream: Stream) -> Tensor:
    """Return a map (H·k, d) of which each head's W (d, k) is semi-orthogonal, from `<name>.head<h>`."""

    def one(head: int) -> Tensor:
        return semi_orthogonal(inputs, head_dim, stream(f"{name}.head{head}")).T

    return torch.cat(list(side_by_side(one, range(heads))))


def zeros_of(slots: Sequence[str], shapes: Callable[[str], tuple[int, ...]]) -> dict[str, Tensor]:
    """Return zeros for slots, by name."""
    return {name: torch.zeros(shapes(name)) for name in slots}
