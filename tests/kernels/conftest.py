"""Reference tensors, small problems and readings that leave images as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mimetic.data.dataset import Dataset, Images
from mimetic.kernels.problem import Problem


def lcg(shape: tuple[int, ...], seed: int, scale: float) -> Tensor:
    """Return the reference's tensor: s ← (1103515245·s + 12345) mod 2³¹, value (s/2³¹ − ½)·scale."""
    state, values = seed, []
    for _ in range(torch.Size(shape).numel()):
        state = (1103515245 * state + 12345) % 2**31
        values.append((state / 2**31 - 0.5) * scale)
    return torch.tensor(values, dtype=torch.float64).view(shape)


def as_they_are(images_NCHW: Tensor) -> Tensor:
    """Return images that are numbers already."""
    return images_NCHW


@pytest.fixture(scope="session")
def draw() -> Callable[..., Tensor]:
    """Return the maker of reference tensors."""
    return lcg


def noise(count: int, *, channels: int, side: int, classes: int, seed: int) -> Images:
    """Return random images with labels in turn."""
    stream = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=stream)
    return Images(pixels, torch.arange(count) % classes)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Return 24 + 9 + 12 random images of 1×6×6 in three classes."""
    train, val, test = (noise(count, channels=1, side=6, classes=3, seed=count) for count in (24, 9, 12))
    return Dataset("noise", train, val, test, 3, (0.5,), (0.25,), "digest")


@pytest.fixture(scope="session")
def given(dataset: Dataset) -> Problem:
    """Return the data set as float64 pixels in [0, 1]."""
    assert dataset.val is not None
    return Problem(dataset.train, dataset.val, dataset.test, 3, lambda pixels: pixels.double() / 255.0)
