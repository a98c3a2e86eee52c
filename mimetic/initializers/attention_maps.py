"""Maps of attention: products near the identity, well conditioned maps.

Row-vector convention: W_Q, W_K are (d, k) and act as Q = X·W_Q; a stored linear weight is the transpose.
All functions are pure, in float64; streams are keyed by what a map is, not by how it is stored.

Sources: Trockman and Kolter, *Mimetic Initialization of Self-Attention Layers*, arXiv 2305.09828, §3
(products, signs and the split by singular values); Saratchandran and Lucey, ICLR 2026 (conditioned).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from mimetic.errors import RunError
from mimetic.graph.structure import Attention
from mimetic.initializers.composite import MapStreams
from mimetic.streams import generator
from mimetic.threads import one_thread, side_by_side

_PROBES, _POWER_STEPS = 4, 3
_TOLERANCE = 16.0 * torch.finfo(torch.float32).eps
"""Relative error up to which factors are accepted; values are stored in float32."""


@dataclass(frozen=True, slots=True)
class NearIdentity:
    """A random matrix A = noise·Z + diagonal·I, the entries of Z independent with variance 1/√(MN).

    Attributes:
        noise: Size of Z.
        diagonal: Factor of I. Where A is not square, I has ones along its diagonal.
        distribution: Of Z: uniform on ±√(3/d) as in the public helper, or normal as in the paper.
    """

    noise: float
    diagonal: float
    distribution: Literal["uniform", "normal"]

    def sample(self, rows: int, columns: int, stream: Generator) -> Tensor:
        """Return A (M, N), in float64."""
        shape = (rows, columns)
        if self.distribution == "uniform":
            unit = (2.0 * torch.rand(shape, generator=stream, dtype=torch.float64) - 1.0) * math.sqrt(3.0)
        else:
            unit = torch.randn(shape, generator=stream, dtype=torch.float64)
        eye = torch.eye(rows, columns, dtype=torch.float64)
        scale = self.noise / math.sqrt(math.sqrt(rows * columns))
        return scale * unit + self.diagonal * eye


def query_key_maps(
    attention: Attention, widths: tuple[int, int], product: NearIdentity, stream: MapStreams
) -> tuple[Tensor, Tensor]:
    """Return maps q (H·k, d_q) and k (G·k, d_k) with W_Q·W_Kᵀ the best rank-k approximation of A by head.

    A is drawn for each head. Heads that share a key (an extension of ours) have the keys that serve all
    of them best: their targets are stacked, [A_1; …; A_r], and factored together, with norms shared out
    equally between a query head and a key head.

    Args:
        attention: Heads and their widths.
        widths: Inputs d_q and d_k of queries and keys.
        product: Distribution of A.
        stream: Streams by head, `qk.head<h>`.
    """
    shared = attention.heads // attention.kv_heads

    def group(first: int) -> tuple[Tensor, Tensor]:
        heads = range(first, first + shared)
        target = torch.cat([product.sample(*widths, stream(f"qk.head{head}")) for head in heads])
        left_MK, right_KN = balanced(target, attention.head_dim)
        size = shared**0.25
        queries = [part_DK.T for part_DK in (left_MK * size).chunk(shared)]
        return torch.cat(queries), right_KN / size

    pairs = side_by_side(group, range(0, attention.heads, shared))
    return torch.cat([q for q, _ in pairs]), torch.cat([k for _, k in pairs])


def value_out_maps(
    attention: Attention,
    widths: tuple[int, int],
    product: NearIdentity,
    stream: MapStreams,
    *,
    legacy_layout: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return maps v (G·m, d_v) and out (d, H·m) with W_V·W_out = A.

    Where attention is the identity (every head returns its own values), the layer then is x ↦ x·A, exactly
    where G·m is at least the rank of A, else its best approximation. Heads that share values (an extension
    of ours) have one projection each, which contributes an equal part.

    Args:
        attention: Heads and their widths.
        widths: Inputs d_v of the values, outputs d of the projection.
        product: Distribution of A, with a negative diagonal in vision models.
        stream: Stream of the layer, `vp`.
        legacy_layout: Return the factors untransposed, as five of six public copies of the helper store
            them: the layer is then x ↦ x·(R·L)ᵀ, of the same trace, with a diagonal ordered by coordinate.
    """
    target = product.sample(*widths, stream("vp"))
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


def semi_orthogonal_heads(
    heads: int, head_dim: int, inputs: int, stream: Callable[[int], Generator]
) -> Tensor:
    """Return a map (H·k, d) of which each head's W (d, k) is semi-orthogonal, from `stream(head)`."""

    def one(head: int) -> Tensor:
        return semi_orthogonal(inputs, head_dim, stream(head)).T

    return torch.cat(side_by_side(one, range(heads)))


def balanced(target_MN: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return L (M, r) and R (r, N) with LᵀL = RRᵀ whose product is the best approximation of rank r.

    With A = U·diag(s)·Vᵀ the factors are L = U·diag(√s) and R = diag(√s)·Vᵀ (arXiv 2305.09828). Singular
    vectors have arbitrary signs; here the largest entry of each right one is positive. A rank above the
    smaller side of A is filled by repeating its components in turn, each of n copies with √(s/n): no row or
    column is zero, and the product is A itself.

    Guarantee: the factors are verified, see `is_best_product`.

    Args:
        target_MN: A, in float64.
        rank: r.

    Raises:
        RunError: If the decomposition is inaccurate, e.g. by a defect of the LAPACK library.
    """
    full = min(target_MN.shape)
    left_MK, values_K, right_KN = _leading_components(target_MN, min(rank, full))
    turn_R = torch.arange(rank) % full
    copies_R = torch.bincount(turn_R, minlength=full)[turn_R]
    root_R = (values_K[turn_R] / copies_R).sqrt()
    left_MR, right_RN = left_MK[:, turn_R] * root_R, root_R[:, None] * right_KN[turn_R]
    if not is_best_product(target_MN, left_MR, right_RN):
        raise RunError(
            f"the singular value decomposition of a matrix of shape {tuple(target_MN.shape)} is inaccurate; "
            "check the installation of torch",
            code="MIM-I021",
        )
    return left_MR, right_RN


def is_best_product(
    target_MN: Tensor, left_MR: Tensor, right_RN: Tensor, *, tolerance: float = _TOLERANCE
) -> bool:
    """Return whether L·R is the best approximation of A of its rank, with orthogonal components.

    Such a product leaves a rest E = A − L·R with E·Rᵀ = 0 and Lᵀ·E = 0, and no singular value of E exceeds
    the smallest of L·R (Eckart and Young); where the rank is that of A, E = 0. Each condition is tested on
    random vectors, the last by a few steps of the power method, which never overestimates.
    """
    stream = generator("probes")

    def rest(vectors_NP: Tensor) -> Tensor:
        return target_MN @ vectors_NP - left_MR @ (right_RN @ vectors_NP)

    def rest_transposed(vectors_MP: Tensor) -> Tensor:
        return target_MN.T @ vectors_MP - right_RN.T @ (left_MR.T @ vectors_MP)

    def is_small(difference: Tensor, expected: Tensor) -> bool:
        size = float(expected.norm())
        return float(difference.norm()) <= tolerance * (size if size > 0.0 else 1.0)

    if left_MR.shape[1] >= min(target_MN.shape):
        vectors_NP = _probes(target_MN.shape[1], stream)
        return is_small(rest(vectors_NP), target_MN @ vectors_NP)
    # The rest is orthogonal to the rows of R and to the columns of L.
    mixed_RP = _probes(left_MR.shape[1], stream)
    rows_NP, columns_MP = right_RN.T @ mixed_RP, left_MR @ mixed_RP
    if not is_small(rest(rows_NP), target_MN @ rows_NP):
        return False
    if not is_small(rest_transposed(columns_MP), target_MN.T @ columns_MP):
        return False
    # The largest singular value of the rest does not exceed the smallest of the product.
    vectors_NP = _probes(target_MN.shape[1], stream)
    for _ in range(_POWER_STEPS):
        vectors_NP = rest_transposed(rest(vectors_NP))
        vectors_NP /= vectors_NP.norm(dim=0).clamp(min=torch.finfo(vectors_NP.dtype).tiny)
    largest = rest(vectors_NP).norm(dim=0).max()
    smallest = (left_MR.norm(dim=0) * right_RN.norm(dim=1)).min()
    return bool(largest <= smallest + tolerance * (left_MR.norm() * right_RN.norm()))


def _probes(size: int, stream: Generator) -> Tensor:
    return torch.randn((size, _PROBES), generator=stream, dtype=torch.float64)


def _leading_components(target_MN: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular vectors (M, r) and (r, N) and their values (r,), with fixed signs.

    Half of the components or fewer come from the smaller Gram matrix, which takes half the time; its large
    singular values are accurate, its small ones are not.
    """
    rows, columns = target_MN.shape
    if 2 * rank <= columns <= rows:
        squares_N, vectors_NN = torch.linalg.eigh(target_MN.T @ target_MN)
        values_R = squares_N[-rank:].flip(0).clamp(min=0.0).sqrt()
        right_RN = vectors_NN[:, -rank:].flip(1).T
        left_MR = (target_MN @ right_RN.T) / values_R.clamp(min=torch.finfo(values_R.dtype).tiny)
    else:
        left_MK, values_K, right_KN = torch.linalg.svd(target_MN, full_matrices=False)
        left_MR, values_R, right_RN = left_MK[:, :rank], values_K[:rank], right_KN[:rank]
    top_R = right_RN.abs().argmax(1, keepdim=True)
    signs_R = right_RN.gather(1, top_R).squeeze(1).sign()
    return left_MR * signs_R, values_R, signs_R[:, None] * right_RN
