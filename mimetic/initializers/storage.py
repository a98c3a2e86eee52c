"""From one real map to the tensor that stores it: experts, fused maps, complex entries, rows that stay zero.

Initializers resolve and draw one real tensor of one map. What a stored tensor contains beyond that is the
same for all of them, and is handled here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from mimetic.covariance.context import Context
from mimetic.covariance.layout import filter_shape, stored
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Parameter, Site
from mimetic.initializers.resolved import Moments, ResolvedInit, Streams

Resolve = Callable[[Site, Context], ResolvedInit]
Per = Literal["tensor", "map"]


def resolve_stored(
    resolve: Resolve, site: Site, context: Context, *, whole: bool = False, per: Per | None = None
) -> ResolvedInit:
    """Resolve an initializer for the tensors of a site.

    Args:
        resolve: `resolve(site, context)` resolves it for real tensors, each of one map.
        site: The site.
        context: The claimed parameters, and harvests.
        whole: Whether the initializer fills a tensor as a whole, whatever it contains.
        per: Whether the maps that are stored one after the other are drawn at once or each alone; None where
            that makes no difference.

    Returns:
        The initializer. Each expert of a stack is drawn alone, by its own stream. Of a complex parameter both
        parts are drawn, each with half the variance. Rows that the layer's class keeps at zero are zero.

    Raises:
        UserError: If a parameter has integers, or complex numbers that the initializer cannot draw.
    """
    # 1. Initializers draw real numbers.
    for local in context.parameters:
        _check_numbers(site.parameter(local))
    # 2. Tensors of one map are resolved together, each of those of several maps in its parts.
    parts = {} if whole else {p: _parts(site, p, per_map=per == "map") for p in context.parameters}
    single = tuple(local for local in context.parameters if not parts.get(local))
    inits = [resolve(site, replace(context, parameters=single))] if single else []
    inits += [_in_parts(resolve, local, parts[local], site, context) for local in parts if parts[local]]
    init = _joined(inits)
    if per == "tensor":
        init = replace(init, notes=(*init.notes, *_map_notes(resolve, site, context, init)))
    # 3. What a real map is not: complex entries, and rows that the class keeps at zero.
    return _with_zero_rows(_with_both_parts(init, site, context), site, context)


def _map_notes(resolve: Resolve, site: Site, context: Context, init: ResolvedInit) -> Iterator[str]:
    """Describe by which fans a tensor of several maps is drawn, where those of a map are others."""
    for local in context.parameters:
        maps = [] if site.parameter(local).experts else _parts(site, local, per_map=True)
        if maps and (here := init.moments.get(local)) is not None:
            alone = _in_parts(resolve, local, maps, site, context).moments[local].std
            if not math.isclose(alone, here.std, rel_tol=1e-9):
                whose = f"each of its {len(maps)} maps" if len(maps) > 1 else "its map"
                yield f"fans of the stored tensor, as in torch.nn.init; `per: map` takes those of {whose}"


def _check_numbers(parameter: Parameter) -> None:
    dtype = getattr(torch, parameter.dtype)
    if not dtype.is_floating_point and not dtype.is_complex:
        raise UserError(
            f"{parameter.name}: its entries are {parameter.dtype}, and initializers draw real numbers; "
            "narrow `match`, or use `init: keep`",
            code="MIM-I110",
        )


def _maps(site: Site, local: str) -> tuple[int, ...]:
    """Return the outputs of each map of a tensor; empty for a single map."""
    geometry, maps = site.geometry, site.parameter(local).maps
    if maps or geometry is None or local != "weight" or geometry.groups == 1:
        return maps
    return (geometry.out_channels // geometry.groups,) * geometry.groups


def _parts(site: Site, local: str, *, per_map: bool) -> list[Site]:
    """Return a site for each part of a tensor that is drawn alone; none where it is drawn at once."""
    parameter, geometry = site.parameter(local), site.geometry
    if parameter.experts is not None:
        one = replace(parameter, shape=parameter.shape[1:], experts=None)
        return [replace(site, parameters=(one,))] * parameter.experts
    sizes = _maps(site, local)
    if not sizes and geometry is not None and geometry.transposed and geometry.kernel_size:
        sizes = (geometry.out_channels,)  # stored input first, so that torch's fans are exchanged
    if not per_map or not sizes:
        return []
    if geometry is None or local != "weight":
        shapes = [(size, *parameter.shape[1:]) for size in sizes]
        return [replace(site, parameters=(replace(parameter, shape=shape, maps=()),)) for shape in shapes]
    inputs, kernel, stride = geometry.patch_channels, geometry.kernel_size, geometry.stride
    maps = [Geometry(inputs, size, kernel, stride) for size in sizes]
    return [
        replace(site, geometry=one, parameters=(replace(parameter, shape=filter_shape(one), maps=()),))
        for one in maps
    ]


def _in_parts(
    resolve: Resolve, local: str, parts: Sequence[Site], site: Site, context: Context
) -> ResolvedInit:
    """Return the initializer that draws the parts of one tensor, each by its own stream."""
    experts, geometry = site.parameter(local).experts, site.geometry
    # 1. Parts of one shape are resolved once.
    alone = replace(context, parameters=(local,))
    by_shape = {part.parameter(local).shape: part for part in parts}
    inits = {shape: resolve(part, alone) for shape, part in by_shape.items()}
    if any(init.network_init is not None for init in inits.values()):
        raise UserError(
            f"{site.layer}: `{local}` contains several maps, and this initializer runs the layer as a whole; "
            "use another scale or initializer",
            code="MIM-I111",
        )

    # 2. Each part is drawn from the stream of its number, and stored with the others.
    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        name = streams.parameters[local]
        drawn = []
        for number, part in enumerate(parts):
            keyed = replace(streams, parameters={local: f"{name}[{number}]"})
            drawn.append(inits[part.parameter(local).shape].sample(keyed, layer)[local])
        if experts is not None:
            return {local: torch.stack(drawn)}
        filters = torch.cat(drawn)
        return {local: filters if geometry is None or local != "weight" else stored(filters, geometry)}

    # 3. The moments are those of the entries of all parts together.
    first = next(iter(inits.values()))
    moments = [inits[part.parameter(local).shape].moments.get(local) for part in parts]
    counts = [math.prod(part.parameter(local).shape) for part in parts]
    known = [m for m in moments if m is not None]
    what = f"{len(parts)} {'maps' if experts is None else 'experts'}, each drawn alone"
    return replace(
        first,
        sample=sample,
        moments={local: _pooled(known, counts)} if len(known) == len(parts) else {},
        notes=(*([what] if len(parts) > 1 else []), *first.notes),
        thread_safe=all(init.thread_safe for init in inits.values()),
    )


def _pooled(moments: Sequence[Moments], counts: Sequence[int]) -> Moments:
    """Return the moments of the entries of several tensors together."""
    total = max(sum(counts), 1)
    mean = sum(n * m.mean for n, m in zip(counts, moments, strict=True)) / total
    square = sum(n * (m.std**2 + (m.mean - mean) ** 2) for n, m in zip(counts, moments, strict=True)) / total
    return Moments(mean, math.sqrt(square), sum(m.draws for m in moments))


def _joined(inits: Sequence[ResolvedInit]) -> ResolvedInit:
    """Return one initializer for the tensors of several."""
    if len(inits) == 1:
        return inits[0]

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        return {local: tensor for init in inits for local, tensor in init.sample(streams, layer).items()}

    return replace(
        inits[0],
        sample=sample,
        moments={local: moments for init in inits for local, moments in init.moments.items()},
        notes=tuple(dict.fromkeys(note for init in inits for note in init.notes)),
        thread_safe=all(init.thread_safe for init in inits),
    )


def _with_both_parts(init: ResolvedInit, site: Site, context: Context) -> ResolvedInit:
    """Draw the real and the imaginary parts of complex parameters, so that E|w − mean|² is the variance.

    Deterministic values are real.
    """
    names = [p for p in context.parameters if getattr(torch, site.parameter(p).dtype).is_complex]
    if not names or init.name in {"keep", "default"}:
        return init
    # 1. What is deterministic stays real; the rest must have independent or Gaussian entries.
    fixed = {local for local, moments in init.moments.items() if moments.std == 0.0 or moments.draws == 0.0}
    drawn = [local for local in names if local not in fixed]
    if drawn and not init.complex_parts:
        raise UserError(
            f"{site.parameter(drawn[0]).name}: its entries are {site.parameter(drawn[0]).dtype}, and "
            f"`{init.name}` draws real numbers only; use an initializer of independent entries",
            code="MIM-I112",
        )

    # 2. The imaginary parts have their own streams; both parts have half the variance, about the real mean.
    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        real = dict(init.sample(streams, layer))
        other = {local: f"{name}:imaginary" for local, name in streams.parameters.items()}
        imaginary = init.sample(replace(streams, parameters=other), layer) if drawn else {}
        for local in drawn:
            mean = init.moments[local].mean if local in init.moments else 0.0
            parts = ((part[local] - mean) / math.sqrt(2.0) for part in (real, imaginary))
            real[local] = torch.complex(*parts) + mean
        return real

    return replace(
        init,
        sample=sample,
        moments={
            local: replace(moments, draws=2.0 * moments.draws) if local in drawn else moments
            for local, moments in init.moments.items()
        },
        notes=(*init.notes, *(["complex: both parts drawn, each with half the variance"] if drawn else [])),
    )


def _with_zero_rows(init: ResolvedInit, site: Site, context: Context) -> ResolvedInit:
    """Set the rows to zero that the layer's class keeps at zero, as its own `reset_parameters` does."""
    rows = {local: list(site.parameter(local).zero_rows) for local in context.parameters}
    rows = {local: zero for local, zero in rows.items() if zero}
    if not rows or init.name in {"keep", "rows"}:  # of `rows`, old ones stay as they are
        return init

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        drawn = init.sample(streams, layer)
        for local, zero in rows.items():
            if local in drawn:
                drawn[local][zero] = 0.0
        return drawn

    moments = dict(init.moments)
    for local, zero in rows.items():
        drawn = moments.pop(local, None)
        # What is fixed and varies, such as the identity, has other moments without a row.
        if drawn is not None and (drawn.draws > 0.0 or drawn.std == 0.0):
            shape = site.parameter(local).shape
            share = len(zero) / shape[0]
            pooled = _pooled([drawn, Moments(0.0, 0.0, 0.0)], [shape[0] - len(zero), len(zero)])
            moments[local] = replace(pooled, draws=drawn.draws * (1.0 - share))
    notes = [f"row {', '.join(map(str, zero))} stays zero: `padding_idx`" for zero in rows.values()]
    network_init = init.network_init and replace(init.network_init, zero_rows=rows)
    return replace(
        init, sample=sample, moments=moments, notes=(*init.notes, *notes), network_init=network_init
    )
