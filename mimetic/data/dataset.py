"""What a loaded data set is: uint8 images and labels in memory, split, with the numbers to normalize by."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

_CHUNK = 4096
"""Images converted at once where statistics are measured: bounds memory."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images and their labels.

    Attributes:
        pixels_NCHW: Pixels, uint8.
        labels_N: Class indices, int64.
    """

    pixels_NCHW: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)


@dataclass(frozen=True, slots=True)
class DataShape:
    """Shape of a data set's images, known before they are loaded.

    Attributes:
        channels: Channels.
        height: Rows.
        width: Columns.
        num_classes: Number of classes.
    """

    channels: int
    height: int
    width: int
    num_classes: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set, split.

    Attributes:
        name: Registered name, e.g. `cifar10`.
        train: Images to train on.
        val: Images held out of the training images, or None.
        test: Images to test on.
        num_classes: Number of classes.
        mean: Mean per channel of pixels scaled to [0, 1], to normalize by.
        std: Standard deviation per channel, in the same units.
        digest: Digest of the pixels and labels of all splits: equal digests, equal data.
    """

    name: str
    train: Images
    val: Images | None
    test: Images
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str

    @property
    def shape(self) -> DataShape:
        """Return the shape of the images."""
        _, channels, height, width = self.train.pixels_NCHW.shape
        return DataShape(channels, height, width, self.num_classes)


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation per channel over all images and pixels, in units of [0, 1].

    A channel that never varies has a standard deviation of 1, so that it can be divided by.
    """
    channels = images.pixels_NCHW.shape[1]
    total_C = torch.zeros(channels, dtype=torch.float64)
    squares_C = torch.zeros(channels, dtype=torch.float64)
    for pixels_NCHW in torch.split(images.pixels_NCHW, _CHUNK):
        # Sums of integers in float64: exact, whatever the order of summation.
        values_NCHW = pixels_NCHW.double()
        total_C += values_NCHW.sum((0, 2, 3))
        squares_C += values_NCHW.square_().sum((0, 2, 3))
    count = images.pixels_NCHW.numel() / channels
    mean_C = total_C / count
    std_C = (squares_C / count - mean_C.square()).clamp_min(0.0).sqrt()
    std_C = torch.where(std_C > 0.0, std_C, 255.0)
    return tuple((mean_C / 255.0).tolist()), tuple((std_C / 255.0).tolist())


def digest(*splits: Images | None) -> str:
    """Return a digest of splits: their shapes, pixels and labels."""
    state = blake2b(digest_size=16)
    for images in splits:
        if images is None:
            state.update(b"none")
            continue
        state.update(repr(tuple(images.pixels_NCHW.shape)).encode())
        for tensor in (images.pixels_NCHW, images.labels_N):
            content: Any = tensor.contiguous().numpy()
            state.update(content)
    return state.hexdigest()
