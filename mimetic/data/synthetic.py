"""Procedural images: coloured gratings, and the row signal in noise of arXiv 2309.00570.

A grating of class k has the orientation π·k/classes and a frequency of its class; position, colour and noise
vary. A row signal is Gaussian noise in which one random row is replaced by ones or by minus ones, and the
sign is the class: a learner of patches finds it anywhere, a fixed kernel does not.
"""

import math

import torch
from torch import Tensor

from mimetic.data.config import RowSignal, Synthetic
from mimetic.data.dataset import ImageSet, ImageSource
from mimetic.streams import generator

_CHUNK = 1024
_CYCLES = (2.0, 3.0, 4.0)
"""Periods per image side; neighbouring orientations differ in frequency too."""

SPAN = 4.0
"""Units on either side of zero that `to_bytes` represents."""

_SIGNS = 2


def synthetic(spec: Synthetic) -> ImageSet:
    """Make `count` training images and a quarter as many (at least one) test images.

    They depend only on the section's shape, classes, count and noise.
    """
    test_count = max(spec.count // 4, 1)
    train, test = _gratings_of(spec, "train", spec.count), _gratings_of(spec, "test", test_count)
    return ImageSet(train, test, spec.classes)


def row_signal(spec: RowSignal) -> ImageSet:
    """Make `count` training images and a quarter as many (at least one) test images."""
    test_count = max(spec.count // 4, 1)
    return ImageSet(_signals(spec, "train", spec.count), _signals(spec, "test", test_count), _SIGNS)


def _gratings_of(spec: Synthetic, split: str, count: int) -> ImageSource:
    labels_N = torch.arange(count) % spec.classes
    draws = generator("synthetic", split, *spec.shape, spec.classes)
    parts = [_gratings(labels, spec, draws) for labels in torch.split(labels_N, _CHUNK)]
    return ImageSource.in_memory(torch.cat(parts), labels_N)


def _gratings(labels_N: Tensor, spec: Synthetic, draws: torch.Generator) -> Tensor:
    """Return ½ + ¼·colour·cos(2π f (x cos θ + y sin θ) + phase) + noise, as uint8 (N, C, side, side)."""
    channels, side = spec.shape
    count = len(labels_N)
    angle_N11 = (math.pi * labels_N / spec.classes)[:, None, None]
    frequency_N11 = torch.tensor(_CYCLES)[labels_N % len(_CYCLES)][:, None, None]
    phase_N11 = 2 * math.pi * torch.rand(count, 1, 1, generator=draws)
    color_NC11 = 0.5 + torch.rand(count, channels, 1, 1, generator=draws)
    noise_NCHW = spec.noise * torch.randn(count, channels, side, side, generator=draws)
    coordinate = torch.arange(side) / side
    along_NHW = coordinate * angle_N11.cos() + coordinate[:, None] * angle_N11.sin()
    wave_NHW = torch.cos(2 * math.pi * frequency_N11 * along_NHW + phase_N11)
    values_NCHW = 0.5 + 0.25 * color_NC11 * wave_NHW[:, None] + noise_NCHW
    return (values_NCHW * 255.0).round().clamp(0, 255).to(torch.uint8)


def _signals(spec: RowSignal, split: str, count: int) -> ImageSource:
    rows, columns = spec.shape
    draws = generator("row_signal", split, rows, columns)
    labels_N = torch.arange(count) % _SIGNS
    values_NHW = spec.noise * torch.randn(count, rows, columns, generator=draws)
    row_N = torch.randint(rows, (count,), generator=draws)
    values_NHW[torch.arange(count), row_N] = (2.0 * labels_N - 1.0)[:, None].expand(-1, columns)
    return ImageSource.in_memory(to_bytes(values_NHW, unit=max(spec.noise, 1.0))[:, None], labels_N)


def to_bytes(values: Tensor, *, unit: float) -> Tensor:
    """Return numbers as uint8: 0 becomes 128, ±SPAN units the ends; values beyond are clipped."""
    return (128.0 + 127.0 * values / (SPAN * unit)).round().clamp(0, 255).to(torch.uint8)
