"""`weight_selection` and `weight_tiling`: weights copied from another network, fitted to our shapes.

Selection (Xu et al., "Initializing Models with Larger Ones", arXiv 2311.18823; github
OscarXZQ/weight-selection) takes evenly spaced entries along each side of a larger tensor. As indices depend
on the two sizes alone, the residual stream has one fixed subset of channels throughout, and blocks correspond
by name: the first N of them.

Tiling (the expansion of "Procedural Core", arXiv 2609.37631) repeats a smaller tensor cyclically,
W'[i, j] = W[i mod O, j mod I], or each row and column in place (`mode: repeat`). Biases are padded with 0,
and norm layers with 1 and 0. The published interface preserves entries; our default is the Frobenius norm of
the whole tensor, as in its inner functions. That middle blocks repeat in turn is ours.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.covariance.context import Context
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.names import walk
from mimetic.graph.site import Site, shape_text
from mimetic.graph.targets import targets
from mimetic.initializers.config import FromNetwork, WeightSelection, WeightTiling
from mimetic.initializers.resolved import ResolvedInit, Streams, not_trained, source_network

Shape = tuple[int, ...]
Fit = Callable[[str, Tensor, Shape], Tensor]
"""`fit(local, tensor, shape)` returns a parameter of the other network in our shape."""

_BLOCK_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def weight_selection(spec: WeightSelection, site: Site, context: Context) -> ResolvedInit:
    """Resolve evenly spaced entries of a larger network's weights of the same names.

    A plan from a network that is not trained yet can be shown, but not applied.

    Raises:
        UserError: If the network is not available, has no such parameter, or a smaller one.
    """
    network = source_network(spec, site, context)
    shapes = _shapes(network)
    sources = _sources(shapes, network.origin, site, context)
    for local, name in sources.items():
        parameter = site.parameter(local)
        if any(ours > theirs for ours, theirs in zip(parameter.shape, shapes[name], strict=True)):
            raise UserError(
                f"{parameter.name}: a selection is from a larger tensor, and {network.origin} has "
                f"{shapes[name]} for our {parameter.shape}; use `weight_tiling` for these layers",
                code="MIM-I051",
            )
    return _transplant(spec, site, network, sources, lambda _local, *fitted: selected(*fitted))


def weight_tiling(spec: WeightTiling, site: Site, context: Context) -> ResolvedInit:
    """Resolve a smaller network's weights of the same names, repeated cyclically.

    A plan from a network that is not trained yet can be shown, but not applied.

    Raises:
        UserError: If the network is not available, has no such parameter, or a larger one.
    """
    network = source_network(spec, site, context)
    shapes = _shapes(network)
    sources = _sources(shapes, network.origin, site, context, lambda name: _tiled_name(spec, name, shapes))
    for local, name in sources.items():
        parameter = site.parameter(local)
        ours, theirs = parameter.shape, shapes[name]
        if any(a < b for a, b in zip(ours, theirs, strict=True)):
            raise UserError(
                f"{parameter.name}: tiling repeats a smaller tensor, and {network.origin} has {theirs} for "
                f"our {ours}; use `weight_selection` for these layers",
                code="MIM-I052",
            )
        if ours and (ours[0] % spec.chunks or theirs[0] % spec.chunks):
            raise UserError(
                f"{parameter.name}: outputs {theirs[0]} and {ours[0]} do not divide into {spec.chunks} "
                "chunks; set `chunks` in a separate rule for fused layers",
                code="MIM-I053",
            )

    def fit(local: str, tensor: Tensor, shape: Shape) -> Tensor:
        # Vectors are padded as published; the rest is repeated, and scaled to the norm that it had.
        if spec.vectors == "pad" and len(shape) == 1 and (site.kind == "norm" or local.endswith("bias")):
            return padded(tensor, shape[0], 0.0 if local.endswith("bias") else 1.0, chunks=spec.chunks)
        values = tiled(tensor.double(), shape, chunks=spec.chunks, repeat=spec.mode == "repeat")
        if spec.preserve == "entries" or len(shape) <= 1:
            return values
        norm, source_norm = values.norm(), tensor.double().norm()
        return values * (source_norm / norm) if float(norm) > 0.0 else values

    return _transplant(spec, site, network, sources, fit)


def selected_indices(larger: int, smaller: int) -> list[int]:
    """Return which of T entries a side of S takes: every (T/S)-th, or round(linspace(0, T - 1, S)).

    As published, points are those of torch in float32: some halves are missed, and round to the lower side.
    """
    if larger % smaller == 0:
        return list(range(0, larger, larger // smaller))
    points_S = torch.linspace(0, larger - 1, smaller, dtype=torch.float32, device="cpu")
    return [int(point) for point in points_S.round().tolist()]


def selected(tensor: Tensor, shape: Shape) -> Tensor:
    """Return evenly spaced entries of a tensor along each side."""
    for side, size in enumerate(shape):
        tensor = tensor.index_select(side, torch.tensor(selected_indices(tensor.shape[side], size)))
    return tensor


def padded(vector: Tensor, size: int, value: float, *, chunks: int = 1) -> Tensor:
    """Return a vector continued by one value; one that is of several maps, map by map."""
    pieces = [
        functional.pad(piece, (0, size // chunks - len(piece)), value=value) for piece in vector.chunk(chunks)
    ]
    return torch.cat(pieces)


def tiled(tensor: Tensor, shape: Shape, *, chunks: int = 1, repeat: bool = False) -> Tensor:
    """Return a tensor repeated along each side; outputs that are several maps, map by map.

    Args:
        tensor: The tensor.
        shape: Shape of the result.
        chunks: Number of maps in its outputs.
        repeat: Repeat each entry in place, the first ones once more where sides do not divide: 0 0 1 1 2;
            otherwise all entries cyclically: 0 1 2 0 1.
    """
    pieces = []
    for chunk in tensor.chunk(chunks):
        piece = chunk
        for side, size in enumerate((shape[0] // chunks, *shape[1:])):
            source = torch.arange(size) % piece.shape[side]
            piece = piece.index_select(side, source.sort().values if repeat else source)
        pieces.append(piece)
    return torch.cat(pieces)


def _transplant(
    spec: FromNetwork, site: Site, network: TrainedNetwork, sources: Mapping[str, str], fit: Fit
) -> ResolvedInit:
    """Return the initializer that copies parameters of another network when it is sampled, not before."""
    shapes = _shapes(network)
    model, origin = network.model, network.origin
    dtypes = {p.name: p.dtype for site in network.graph.sites for p in site.parameters}
    for local, name in sources.items():
        if not getattr(torch, dtypes[name]).is_floating_point:
            raise UserError(
                f"{site.parameter(local).name}: `{name}` of {origin} is {dtypes[name]}, and a copy would "
                "lose a part of it; match other layers",
                code="MIM-I057",
            )

    # Values are read when they are drawn: a plan of an untrained network has shapes only.
    def sample(_streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
        if model is None:
            what = f"{site.layer}: {origin}"
            raise not_trained(what, "its weights are not available", code="MIM-I054")
        known = targets(walk(model))
        tensors = {name: known[name].current() for name in set(sources.values())}
        fitted = {
            local: fit(local, tensors[name], site.parameter(local).shape) for local, name in sources.items()
        }
        exact = {local: torch.promote_types(tensors[sources[local]].dtype, torch.float32) for local in fitted}
        return {
            local: values.to(exact[local], memory_format=torch.contiguous_format, copy=True)
            for local, values in fitted.items()
        }

    version = {"harvest": "pending"} if model is None else {"digest": network.digest}
    return ResolvedInit(
        name=spec.type_name(),
        arguments={**spec.model_dump(by_alias=True, exclude={"type"}, exclude_none=True), **version},
        sample=sample,
        notes=tuple(
            f"{local}: {shape_text(shapes[name])} → {shape_text(site.parameter(local).shape)} of {origin}, "
            f"`{name}`"
            for local, name in sources.items()
        ),
    )


def _shapes(network: TrainedNetwork) -> dict[str, Shape]:
    return {p.name: p.shape for site in network.graph.sites for p in site.parameters}


def _sources(
    shapes: Mapping[str, Shape],
    origin: str,
    site: Site,
    context: Context,
    rename: Callable[[str], str] = str,
) -> dict[str, str]:
    """Return the other network's parameter for each of ours: the first of its names, renamed, that it has.

    Raises:
        UserError: If it has none of them, or a tensor with another number of dimensions.
    """
    found = {}
    for local in context.parameters:
        parameter = site.parameter(local)
        names = [rename(name) for name in (parameter.name, *parameter.aliases)]
        name = next((name for name in names if name in shapes), None)
        if name is None:
            raise UserError(
                f"{parameter.name}: {origin} has no parameter `{names[0]}`; match only layers both "
                "networks have, e.g. not the head",
                code="MIM-I055",
            )
        if len(parameter.shape) != len(shapes[name]):
            raise UserError(
                f"{parameter.name}: {origin} has one of shape {shapes[name]} there, ours is "
                f"{parameter.shape}; narrow `match` to layers of one kind",
                code="MIM-I056",
            )
        found[local] = name
    return found


def _tiled_name(spec: WeightTiling, name: str, shapes: Mapping[str, Shape]) -> str:
    """Return a name with the number of the other network's block that ours repeats."""
    found = _BLOCK_NUMBER.search(name)
    if spec.blocks is None or found is None:
        return name
    start = name[: found.start()]
    numbers = (other[len(start) :].partition(".")[0] for other in shapes if other.startswith(start))
    count = max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
    return f"{start}{_repeated_block(int(found[0]), ours=spec.blocks, theirs=count)}{name[found.end() :]}"


def _repeated_block(block: int, *, ours: int, theirs: int) -> int:
    """Return which of their blocks ours repeats: first, last, or the middle ones in turn."""
    if block == 0 or theirs == 1:
        return 0
    if block >= ours - 1:
        return theirs - 1
    middle = theirs - 2
    return 1 + (block - 1) % middle if middle > 0 else block * theirs // ours
