"""Guess inputs of a network from its attributes and first layers."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import Walked
from mimetic.graph.own import own_parameters
from mimetic.graph.site import Geometry

_BATCH = 2  # batch statistics need two samples
_SIDES = (224, 32, 64, 28, 96, 128, 256, 299, 384, 16, 8)
_CLIP_SIDES = ((16, 112, 112), (8, 32, 32), (32, 32, 32))
_LENGTHS = (224, 1024, 64, 16)
_TOKENS = 16
_SIZE_ATTRIBUTES = ("image_size", "img_size", "input_size")


def guesses(walked: Sequence[Walked]) -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs (positional arguments, on the meta device) to try, the most likely first.

    Images (2, C, H, W) of the size declared by timm's `pretrained_cfg` or `image_size` attributes, or of
    common sizes, with the channels of the first convolution; clips and signals likewise; features (2, F) or
    (2, T, F) for the first linear or recurrent layer; token ids (2, T) for the first embedding.
    """
    seen: set[tuple[tuple[int, ...], torch.dtype]] = set()
    for shape, dtype in _shapes(walked):
        if (shape, dtype) not in seen:
            seen.add((shape, dtype))
            yield (torch.empty(shape, dtype=dtype, device="meta"),)


def _shapes(walked: Sequence[Walked]) -> Iterator[tuple[tuple[int, ...], torch.dtype]]:
    seen: set[str] = set()
    for position, (_, _, module) in enumerate(walked):
        if not own_parameters(module):
            continue
        kind, geometry = kind_and_geometry(module)
        family = "conv" if "conv" in kind else kind
        if isinstance(module, nn.RNNBase):
            yield (_BATCH, _TOKENS, module.input_size), _dtype(module)
        if geometry is None or family in seen:
            continue
        seen.add(family)
        if family == "embedding":
            yield (_BATCH, _TOKENS), torch.int64
        elif family == "linear":
            yield (_BATCH, geometry.in_channels), _dtype(module)
            yield (_BATCH, _TOKENS, geometry.in_channels), _dtype(module)
        else:
            declared = _declared(module for _, _, module in walked[: position + 1])
            yield from ((shape, _dtype(module)) for shape in _grids(declared, geometry))


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters(recurse=False)), torch.float32)


def _grids(declared: Iterator[tuple[int, int]], geometry: Geometry) -> Iterator[tuple[int, ...]]:
    """Return shapes of images, clips or signals for a first convolution."""
    channels = geometry.in_channels
    match len(geometry.kernel_size):
        case 1:
            yield from ((_BATCH, channels, length) for length in _LENGTHS)
        case 3:
            yield from ((_BATCH, channels, *sides) for sides in _CLIP_SIDES)
        case _:
            sizes = dict.fromkeys((*declared, *((side, side) for side in _SIDES)))
            yield from ((_BATCH, channels, *size) for size in sizes)


def _declared(modules: Iterable[nn.Module]) -> Iterator[tuple[int, int]]:
    """Return image sizes that the model and its modules before the first convolution declare."""
    for module in modules:
        for config in ("pretrained_cfg", "default_cfg", "config"):
            yield from _sides(_entry(module.__dict__.get(config), "input_size"))
            yield from _sides(_entry(module.__dict__.get(config), "image_size"))
        for name in _SIZE_ATTRIBUTES:
            yield from _sides(module.__dict__.get(name))


def _entry(config: object, name: str) -> object:
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


def _sides(size: object) -> Iterator[tuple[int, int]]:
    """Parse a size given as a side, as (H, W) or as (C, H, W)."""
    if isinstance(size, int) and not isinstance(size, bool):
        yield size, size
    elif isinstance(size, list | tuple) and len(size) in {2, 3} and all(isinstance(s, int) for s in size):
        yield size[-2], size[-1]
