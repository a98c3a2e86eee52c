"""Procedural gratings: as many images of any shape as a benchmark or a test wants, without a file.

Class k has an orientation, π·k/classes, and a frequency of its own; position, colour and noise vary.
"""

import math

import torch
from torch import Tensor

from mimetic.data.config import Synthetic
from mimetic.data.dataset import DataShape
from mimetic.data.load import native_shape, source
from mimetic.data.pool import Pool, Source, in_memory
from mimetic.streams import generator

_CHUNK = 1024
_CYCLES = (2.0, 3.0, 4.0)
"""Periods per image side; neighbouring orientations differ in frequency too."""


@source.register
def synthetic(spec: Synthetic) -> Source:
    """Return `count` images to train on and a quarter as many (at least one) to test on.

    They depend on the section's shape, classes, count and noise alone.
    """
    test_count = max(spec.count // 4, 1)
    return Source(_pool(spec, "train", spec.count), _pool(spec, "test", test_count), spec.classes)


@native_shape.register
def shape(spec: Synthetic) -> DataShape:
    """Return the shape the section names."""
    channels, side = spec.shape
    return DataShape(channels, side, side, spec.classes)


def _pool(spec: Synthetic, split: str, count: int) -> Pool:
    labels_N = torch.arange(count) % spec.classes
    draws = generator("synthetic", split, *spec.shape, spec.classes)
    parts = [_gratings(labels, spec, draws) for labels in torch.split(labels_N, _CHUNK)]
    return in_memory(torch.cat(parts), labels_N)


def _gratings(labels_N: Tensor, spec: Synthetic, draws: torch.Generator) -> Tensor:
    """Return ½ + ¼·colour·cos(2π f (x cos θ + y sin θ) + phase) + noise, as uint8 (N, C, side, side)."""
    channels, side = spec.shape
    count = len(labels_N)
    angle_N11 = (math.pi * labels_N / spec.classes)[:, None, None]
    frequency_N11 = torch.tensor(_CYCLES)[labels_N % len(_CYCLES)][:, None, None]
    phase_N11 = 2 * math.pi * torch.rand(count, 1, 1, generator=draws)
    color_NC11 = 0.5 + torch.rand(count, channels, 1, 1, generator=draws)
    noise_NCHW = spec.noise * torch.randn(count, channels, side, side, generator=draws)
    place = torch.arange(side) / side
    along_NHW = place * angle_N11.cos() + place[:, None] * angle_N11.sin()
    wave_NHW = torch.cos(2 * math.pi * frequency_N11 * along_NHW + phase_N11)
    values_NCHW = 0.5 + 0.25 * color_NC11 * wave_NHW[:, None] + noise_NCHW
    return (values_NCHW * 255.0).round().clamp(0, 255).to(torch.uint8)
