"""Stripes in noise, made once."""

import torch

from mimetic.data.dataset import ImageSet, ImageSource
from mimetic.streams import generator
from mimetic_example.config import Stripes


def stripes(spec: Stripes) -> ImageSet:
    """Make `count` training images and a quarter as many test images, half of each class."""
    return ImageSet(_images("train", spec.count), _images("test", max(spec.count // 4, 2)), 2)


def _images(split: str, count: int) -> ImageSource:
    labels_N = torch.arange(count) % 2
    wave_8 = torch.arange(8) % 4 < 2
    horizontal_88 = wave_8[:, None].expand(8, 8)
    clean_N188 = torch.where(labels_N[:, None, None] == 0, horizontal_88, horizontal_88.T)[:, None] * 160.0
    noise_N188 = 60.0 * torch.randn(count, 1, 8, 8, generator=generator("stripes", split))
    return ImageSource.in_memory((clean_N188 + noise_N188 + 48.0).clamp(0.0, 255.0).byte(), labels_N)
