"""Pools: labels in memory, pixels on demand: a subset of a large folder decodes no more than itself."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mimetic.data.dataset import Images


@dataclass(frozen=True, slots=True)
class Pool:
    """All images a set offers for one purpose.

    Attributes:
        labels_N: Class indices, int64.
        read: `read(indices_M)` returns the uint8 pixels (M, C, H, W) of the images asked for.
    """

    labels_N: Tensor
    read: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def take(self, indices_M: Tensor) -> Images:
        """Return some of the images."""
        return Images(self.read(indices_M).contiguous(), self.labels_N[indices_M])


@dataclass(frozen=True, slots=True)
class Source:
    """A data set before subsets are chosen.

    Attributes:
        train: Images for training and for the held-out validation split.
        test: Images for testing.
        num_classes: Number of classes.
        published: Mean and standard deviation per channel as the field uses them; None where they are
            measured on the training images.
    """

    train: Pool
    test: Pool
    num_classes: int
    published: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def in_memory(pixels_NCHW: Tensor, labels_N: Tensor) -> Pool:
    """Return a pool of images that are loaded already."""
    return Pool(labels_N, pixels_NCHW.__getitem__)
