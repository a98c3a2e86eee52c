"""`weight_selection` and `weight_tiling`: weights taken from another network, fitted to our shapes.

Selection (Xu et al., "Initializing Models with Larger Ones", arXiv 2311.18823; github
OscarXZQ/weight-selection) takes evenly spaced entries along each side of a larger tensor. As indices depend
on the two sizes alone, the residual stream keeps one fixed subset of channels throughout, and blocks
correspond by name: the first N of them.

Tiling (the expansion of "Procedural Core", arXiv 2609.37631) repeats a smaller tensor cyclically,
W'[i, j] = W[i mod O, j mod I], and brings it back to its Frobenius norm.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from mimetic.covariance.context import Harvests
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_parameters
from mimetic.graph.site import Parameter, Site
from mimetic.initializers.config import FromNetwork, WeightSelection, WeightTiling
from mimetic.initializers.draw import Moments, ResolvedInit, Streams

Shape = tuple[int, ...]

_MATRIX = 2
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def transplant(spec: FromNetwork, site: Site, names: tuple[str, ...], harvests: Harvests) -> ResolvedInit:
    """Return the draw that takes another network's weights for the claimed parameters of a layer.

    Of a network that is not trained yet the draw can be shown, but not sampled.

    Raises:
        UserError: If the network is not at hand, has no such parameter, or one that cannot be fitted.
    """
    network = harvests.get(harvest_key(spec))
    if not isinstance(network, TrainedNetwork):
        message = f"{site.layer}: `{spec.type_name()}` needs a trained network, and none is at hand here; "
        raise UserError(message + "`mimetic run` finds or trains what a recipe asks for")
    shapes = {p.name: p.shape for other in network.graph.sites for p in other.parameters}
    taken = {name: _theirs(spec, site.parameter(name), shapes, network.origin) for name in names}
    arguments = spec.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    notes = tuple(
        _note(name, shapes[theirs], site.parameter(name).shape, f"{network.origin}, `{theirs}`")
        for name, theirs in taken.items()
    )
    if network.model is None:
        return ResolvedInit(
            spec.type_name(), {**arguments, "harvest": "pending"}, _pending(site, network.origin), notes=notes
        )
    tensors = canonical_parameters(network.model)
    fitted = {
        name: _fitted(spec, tensors[theirs].detach().cpu(), site.parameter(name).shape)
        for name, theirs in taken.items()
    }
    return ResolvedInit(
        name=spec.type_name(),
        arguments={**arguments, "digest": _digest(fitted)},
        sample=lambda streams, layer: {name: t.clone() for name, t in fitted.items()},  # noqa: ARG005
        moments={name: _moments(tensor) for name, tensor in fitted.items()},
        notes=notes,
    )


def selected_indices(larger: int, smaller: int) -> list[int]:
    """Return which of T entries a side of S keeps: every (T/S)-th, or round(linspace(0, T - 1, S)).

    Halves are rounded to even, as torch does.
    """
    if larger % smaller == 0:
        return list(range(0, larger, larger // smaller))
    return [round(Fraction(i * (larger - 1), smaller - 1)) for i in range(smaller)]


def selected(tensor: Tensor, shape: Shape) -> Tensor:
    """Return evenly spaced entries of a tensor along each side."""
    for side, size in enumerate(shape):
        tensor = tensor.index_select(side, torch.tensor(selected_indices(tensor.shape[side], size)))
    return tensor


def tiled(tensor: Tensor, shape: Shape, *, parts: int = 1) -> Tensor:
    """Return a tensor repeated cyclically along each side; outputs that are several maps, map by map."""
    pieces = []
    for piece in tensor.chunk(parts):
        for side, size in enumerate((shape[0] // parts, *shape[1:])):
            piece = piece.index_select(side, torch.arange(size) % piece.shape[side])  # noqa: PLW2901
        pieces.append(piece)
    return torch.cat(pieces)


def _fitted(spec: FromNetwork, tensor: Tensor, shape: Shape) -> Tensor:
    """Return a weight in our shape, float32."""
    if isinstance(spec, WeightTiling):
        values = tiled(tensor.double(), shape, parts=spec.parts)
        if spec.keep == "norm" and len(shape) >= _MATRIX:
            norm, before = values.norm(), tensor.double().norm()
            values = values * (before / norm) if float(norm) > 0.0 else values
    else:
        values = selected(tensor, shape)
    return values.to(torch.float32, memory_format=torch.contiguous_format)


def _theirs(spec: FromNetwork, parameter: Parameter, shapes: Mapping[str, Shape], origin: str) -> str:
    """Return the name of the parameter ours is taken from.

    Raises:
        UserError: If there is none, or one whose shape does not fit.
    """
    asked = [_block(spec, name, shapes) for name in (parameter.name, *parameter.aliases)]
    name = next((name for name in asked if name in shapes), None)
    if name is None:
        message = f"{parameter.name}: {origin} has no parameter `{asked[0]}`; "
        raise UserError(message + "match only layers both networks have, e.g. not the head")
    ours, theirs = parameter.shape, shapes[name]
    if len(ours) != len(theirs):
        message = f"{parameter.name}: {origin} has one of shape {theirs} there, ours is {ours}; "
        raise UserError(message + "narrow `match` to layers of one kind")
    if isinstance(spec, WeightSelection) and any(a > b for a, b in zip(ours, theirs, strict=True)):
        message = f"{parameter.name}: a selection is from a larger tensor, and {origin} has {theirs} "
        raise UserError(f"{message}for our {ours}; take `weight_tiling` for these layers")
    if isinstance(spec, WeightTiling) and any(a < b for a, b in zip(ours, theirs, strict=True)):
        message = f"{parameter.name}: tiling repeats a smaller tensor, and {origin} has {theirs} "
        raise UserError(f"{message}for our {ours}; take `weight_selection` for these layers")
    if isinstance(spec, WeightTiling) and len(ours) > 0 and (ours[0] % spec.parts or theirs[0] % spec.parts):
        message = (
            f"{parameter.name}: outputs {theirs[0]} and {ours[0]} do not divide into {spec.parts} parts; "
        )
        raise UserError(message + "set `parts` for fused layers alone, in a rule of their own")
    return name


def _block(spec: FromNetwork, name: str, shapes: Mapping[str, Shape]) -> str:
    """Return a name with the number of its block, where tiling has the blocks repeat."""
    found = _NUMBER.search(name)
    if not isinstance(spec, WeightTiling) or spec.blocks is None or found is None:
        return name
    start = name[: found.start()]
    theirs = {int(other[len(start) :].partition(".")[0]) for other in shapes if _numbered(other, start)}
    number = _repeated(int(found[0]), ours=spec.blocks, theirs=max(theirs, default=0) + 1)
    return f"{start}{number}{name[found.end() :]}"


def _numbered(name: str, start: str) -> bool:
    return name.startswith(start) and name[len(start) :].partition(".")[0].isdecimal()


def _repeated(block: int, *, ours: int, theirs: int) -> int:
    """Return which of their blocks ours is: first, last, or the middle ones in turn."""
    if block == 0 or theirs == 1:
        return 0
    if block >= ours - 1:
        return theirs - 1
    middle = theirs - 2
    return 1 + (block - 1) % middle if middle > 0 else block * theirs // ours


def _note(name: str, theirs: Shape, ours: Shape, origin: str) -> str:
    return f"{name}: {'×'.join(map(str, theirs))} → {'×'.join(map(str, ours))} of {origin}"


def _pending(site: Site, origin: str) -> Callable[[Streams, nn.Module], Mapping[str, Tensor]]:
    def sample(_streams: Streams, _layer: nn.Module) -> Mapping[str, Tensor]:
        message = f"{site.layer}: {origin} is not trained yet, so there is nothing to take from it; "
        raise RunError(message + "train it and resolve the plan again (`mimetic run` does)")

    return sample


def _moments(tensor: Tensor) -> Moments:
    values = tensor.double()
    mean = float(values.mean()) if values.numel() else 0.0
    return Moments(mean, float((values - mean).square().mean().sqrt()) if values.numel() else 0.0, 0.0)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    state = blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        content: Any = tensor.numpy()
        state.update(f"|{name}|{tuple(tensor.shape)}|".encode())
        state.update(content)
    return state.hexdigest()
