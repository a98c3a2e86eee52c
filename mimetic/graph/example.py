"""Inputs a network might take, guessed from its attributes and its first layers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import walk
from mimetic.graph.site import Geometry

_BATCH = 2  # batch statistics of one sample do not exist
_SIDES = (224, 32, 64, 28, 96, 128, 256, 299, 384, 16, 8)
_CLIP_SIDES = ((16, 112, 112), (8, 32, 32), (32, 32, 32))
_LENGTHS = (224, 1024, 64, 16)
_TOKENS = 16
_SIZE_ATTRIBUTES = ("image_size", "img_size", "input_size")


def guesses(model: nn.Module) -> tuple[tuple[Tensor, ...], ...]:
    """Return inputs (as positional arguments, on the meta device) to try, the likeliest first.

    Images (2, C, H, W) of the size timm's `pretrained_cfg` or attributes like `image_size` declare, else
    of common sizes, with the channels of the first convolution; clips and signals likewise; features
    (2, F) or (2, T, F) for the first linear or recurrent layer; token ids (2, T) for the first embedding.
    """
    shapes: dict[tuple[tuple[int, ...], torch.dtype], None] = {}
    for shape, dtype in _shapes(model):
        shapes.setdefault((shape, dtype))
    return tuple((torch.empty(shape, dtype=dtype, device="meta"),) for shape, dtype in shapes)


def _shapes(model: nn.Module) -> Iterator[tuple[tuple[int, ...], torch.dtype]]:
    seen: set[str] = set()
    for _, _, module in walk(model):
        if not module._parameters:  # noqa: SLF001
            continue
        kind, geometry = kind_and_geometry(module)
        dtype = next((p.dtype for p in module.parameters(recurse=False)), torch.float32)
        family = "conv" if kind.endswith("conv") else kind
        if family in seen:
            continue
        seen.add(family)
        if isinstance(module, nn.RNNBase):
            yield (_BATCH, _TOKENS, module.input_size), dtype
        elif geometry is not None and family == "embedding":
            yield (_BATCH, _TOKENS), torch.int64
        elif geometry is not None and family == "linear":
            yield (_BATCH, geometry.in_channels), dtype
            yield (_BATCH, _TOKENS, geometry.in_channels), dtype
        elif geometry is not None and family in {"conv", "conv_transpose"}:
            yield from ((shape, dtype) for shape in _grids(model, geometry))


def _grids(model: nn.Module, geometry: Geometry) -> Iterator[tuple[int, ...]]:
    """Return shapes of images, clips or signals for a first convolution."""
    channels = geometry.in_channels
    match len(geometry.kernel_size):
        case 1:
            yield from ((_BATCH, channels, length) for length in _LENGTHS)
        case 3:
            yield from ((_BATCH, channels, *sides) for sides in _CLIP_SIDES)
        case _:
            sizes = dict.fromkeys((*_declared(model), *((side, side) for side in _SIDES)))
            yield from ((_BATCH, channels, *size) for size in sizes)


def _declared(model: nn.Module) -> Iterator[tuple[int, int]]:
    """Return image sizes the model or a part of it declares."""
    for _, _, module in walk(model):
        for config in ("pretrained_cfg", "default_cfg", "config"):
            yield from _sides(_entry(module.__dict__.get(config), "input_size"))
            yield from _sides(_entry(module.__dict__.get(config), "image_size"))
        for name in _SIZE_ATTRIBUTES:
            yield from _sides(module.__dict__.get(name))


def _entry(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


def _sides(size: Any) -> Iterator[tuple[int, int]]:
    """Read a size given as a side, as (H, W) or as (C, H, W)."""
    if isinstance(size, int) and not isinstance(size, bool):
        yield size, size
    elif isinstance(size, list | tuple) and len(size) in {2, 3} and all(isinstance(s, int) for s in size):
        yield size[-2], size[-1]
