"""What the maps of attention promise, held against what was written.

The entries of a balanced factor have no moments in closed form: its singular values are those of noise plus
identity, cut at a rank. Its product has a target, though, which is drawn again from the same stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mimetic.graph.structure import Attention
from mimetic.initializers.attention import Noise, Stream, near_identity, query_key_target
from mimetic.initializers.products import close, makes_best, semi_orthogonal_rows

Maps = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Promise:
    """What some maps of an attention make together.

    Attributes:
        slots: Names of the maps.
        said: What it is, for the reader of the plan.
        kept: `kept(stream, maps, rounding)`: whether maps in float64, stored in a dtype of that relative
            rounding, make it; `stream` gives the streams they were drawn from.
    """

    slots: tuple[str, ...]
    said: str
    kept: Callable[[Stream, Maps, float], bool]


def query_key_promise(
    attention: Attention, widths: tuple[int, int], *, noise: float, diagonal: float, law: Noise
) -> Promise:
    """Return what `query_key_maps` promise: each head's product is the best approximation of its target."""
    shared = attention.heads // attention.kv_heads

    def kept(stream: Stream, maps: Maps, rounding: float) -> bool:
        queries, keys = by_head(maps["q"], attention.heads), by_head(maps["k"], attention.kv_heads)
        for group, key_KD in enumerate(keys):
            heads = range(group * shared, (group + 1) * shared)
            target = query_key_target(heads, widths, noise=noise, diagonal=diagonal, law=law, stream=stream)
            left_MK = queries[heads.start : heads.stop].mT.flatten(0, 1)
            if not makes_best(target, left_MK, key_KD, rounding=rounding):
                return False
        return True

    whose = "each head" if shared == 1 else f"the {shared} heads that share a key"
    best = f"the best approximation of rank {attention.head_dim} of {_target(noise, diagonal)}"
    return Promise(("q", "k"), f"W_Q·W_Kᵀ of {whose} is {best}", kept)


def value_out_promise(
    attention: Attention,
    widths: tuple[int, int],
    *,
    noise: float,
    diagonal: float,
    law: Noise,
    legacy_layout: bool = False,
) -> Promise:
    """Return what `value_out_maps` promise: the product of values and projection, summed over the heads."""
    rank = attention.kv_heads * attention.value_dim
    shared = attention.heads // attention.kv_heads

    def kept(stream: Stream, maps: Maps, rounding: float) -> bool:
        target = near_identity(*widths, noise=noise, diagonal=-diagonal, law=law, stream=stream("vp"))
        if legacy_layout:
            return makes_best(target, maps["v"], maps["out"], rounding=rounding)
        projections = by_head(maps["out"].T, attention.heads)
        by_group = projections.reshape(attention.kv_heads, shared, *projections.shape[1:])
        whole_RN = by_group.sum(1).flatten(0, 1)
        return makes_best(target, maps["v"].T, whole_RN, rounding=rounding)

    made = "W_V·W_out" if not legacy_layout else "the product of values and projection as stored"
    best = "" if rank >= min(widths) else f"the best approximation of rank {rank} of "
    return Promise(("v", "out"), f"{made} is {best}{_target(noise, -diagonal)}", kept)


def impulse_promise(
    attention: Attention, targets: Callable[[Stream], Sequence[Tensor]], *, norm: float
) -> Promise:
    """Return what queries and keys of `impulse_factors` promise.

    Args:
        attention: Heads and their widths.
        targets: Returns the logits pulled back through the positions, (d, d) by head.
        norm: Frobenius norm of each head's W_Q and W_K.
    """

    def kept(stream: Stream, maps: Maps, rounding: float) -> bool:
        queries, keys = (by_head(maps[name], attention.heads) for name in ("q", "k"))
        sizes = (heads.norm(dim=(1, 2)) for heads in (queries, keys))
        return all(close(size, norm, rounding=rounding) for size in sizes) and all(
            makes_best(_sized(target, query.T, key), query.T, key, rounding=rounding)
            for target, query, key in zip(targets(stream), queries, keys, strict=True)
        )

    what = f"the best approximation of rank {attention.head_dim} of the impulse's logits, pulled back"
    return Promise(("q", "k"), f"W_Q·W_Kᵀ of each head is, up to a factor, {what}; norms are {norm:g}", kept)


def semi_orthogonal_promise(name: str, heads: int) -> Promise:
    """Return what `semi_orthogonal_heads` promise of queries, or of keys."""

    def kept(_stream: Stream, maps: Maps, rounding: float) -> bool:
        return semi_orthogonal_rows(by_head(maps[name], heads), rounding=rounding)

    return Promise((name,), f"W_{name.upper()} of each head is semi-orthogonal", kept)


def exact_promise(name: str, said: str, expected: Callable[[], Tensor]) -> Promise:
    """Return the promise that a map is a certain matrix, made when it is asked for."""

    def kept(_stream: Stream, maps: Maps, rounding: float) -> bool:
        return close(maps[name], expected(), rounding=rounding)

    return Promise((name,), said, kept)


def by_head(map_OD: Tensor, heads: int) -> Tensor:
    """Return a map (H·k, d) as (H, k, d)."""
    return map_OD.reshape(heads, -1, map_OD.shape[1])


def _sized(target: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Scale a target to the product of factors that are known up to a factor."""
    product = left @ right
    along = (target * product).sum()
    return target * (product.square().sum() / along) if along > 0.0 else target


def _target(noise: float, diagonal: float) -> str:
    """Write A = noise·Z ± diagonal·I, without a term of size 0."""
    size = f"{abs(diagonal):g}·I"
    if diagonal == 0.0 or noise == 0.0:
        return f"{noise:g}·Z" if diagonal == 0.0 else f"{'−' if diagonal < 0 else ''}{size}"
    return f"{noise:g}·Z {'−' if diagonal < 0 else '+'} {size}"
