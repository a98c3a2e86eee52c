"""Data sets in memory: images or token sequences, their splits, statistics and digests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType

import torch
from torch import Tensor

from mimetic.data.shapes import DataShape, ImageShape, TokenShape
from mimetic.errors import UserError

_CHUNK = 4096
"""Images converted at once when statistics are measured; bounds memory."""

IGNORED = -100
"""Label of a position without a target, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images and their labels.

    Pixels are uint8, labels int64 class indices.
    """

    pixels_NCHW: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    @property
    def inputs(self) -> Tensor:
        """Return the stored model inputs (N, C, H, W)."""
        return self.pixels_NCHW

    @property
    def labels(self) -> Tensor:
        """Return the targets (N,)."""
        return self.labels_N

    def num_targets(self, chosen_M: Tensor | None = None) -> int:
        """Return the number of targets of some images, or of all: one each."""
        return len(self) if chosen_M is None else len(chosen_M)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Sequences of tokens with a target at some positions.

    Both are int64; the label of a position without a target is `IGNORED`.
    """

    tokens_NL: Tensor
    labels_NL: Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.tokens_NL)

    @property
    def inputs(self) -> Tensor:
        """Return the model inputs (N, L)."""
        return self.tokens_NL

    @property
    def labels(self) -> Tensor:
        """Return the targets (N, L)."""
        return self.labels_NL

    def num_targets(self, chosen_M: Tensor | None = None) -> int:
        """Return the number of targets of some sequences, or of all."""
        labels = self.labels_NL if chosen_M is None else self.labels_NL.index_select(0, chosen_M)
        return int((labels != IGNORED).sum().item())


Split = Images | Tokens
"""Examples of one split."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Stored images of one split: labels in memory, pixels read on demand.

    `read(indices_M)` returns the uint8 pixels (M, C, H, W) of some images.
    """

    labels_N: Tensor
    read: Callable[[Tensor], Tensor]

    @classmethod
    def in_memory(cls, pixels_NCHW: Tensor, labels_N: Tensor) -> "ImageSource":
        """Return a source of images that are already loaded."""
        return cls(labels_N, pixels_NCHW.__getitem__)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def take(self, indices_M: Tensor) -> Images:
        """Read some of the images."""
        return Images(self.read(indices_M).contiguous(), self.labels_N[indices_M])

    def subset(self, indices_M: Tensor) -> "ImageSource":
        """Return a source of some of the images, without reading them."""
        return ImageSource(self.labels_N[indices_M], lambda chosen: self.read(indices_M[chosen]))


@dataclass(frozen=True, slots=True)
class ImageSet:
    """An image set as it is stored, before splits and subsets.

    The training images include those for validation. `normalization` has the published mean and standard
    deviation per channel, in units of [0, 1]; None if they are to be measured.
    """

    train: ImageSource
    test: ImageSource
    num_classes: int
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A loaded data set.

    Attributes:
        name: Registered name, e.g. `cifar10`.
        train: Training split.
        val: Validation split, or None.
        test: Test split.
        num_classes: Number of classes.
        mean: Mean per channel for normalization, of pixels scaled to [0, 1]; empty for tokens.
        std: Standard deviation per channel, in the same units.
        digest: Digest of the inputs and labels of all splits: equal digests, equal data.
        probes: Further evaluation sets by split and name, e.g. ("test", "len64").
    """

    name: str
    train: Split
    val: Split | None
    test: Split
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    probes: Mapping[tuple[str, str], Split] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def shape(self) -> DataShape:
        """Return the shape of the examples."""
        if isinstance(self.train, Tokens):
            return TokenShape(self.num_classes, self.train.tokens_NL.shape[1], self.num_classes)
        _, channels, height, width = self.train.pixels_NCHW.shape
        return ImageShape(channels, height, width, self.num_classes)

    def pixels(self, count: int) -> Tensor:
        """Return the first training images, uint8 (N, C, H, W).

        Raises:
            UserError: If the set contains token sequences.
        """
        if isinstance(self.train, Tokens):
            raise UserError(
                f"`{self.name}` contains token sequences and images are needed; choose other data",
                code="MIM-D010",
            )
        return self.train.pixels_NCHW[:count]

    def splits(self) -> dict[tuple[str, str], Split]:
        """Return the evaluation sets by split and probe name (empty for the split itself)."""
        whole = {("val", ""): self.val, ("test", ""): self.test}
        return {**{name: split for name, split in whole.items() if split is not None}, **self.probes}


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation per channel over all images and pixels, in units of [0, 1].

    A constant channel gets a standard deviation of 1, since images are divided by it.
    """
    channels = images.pixels_NCHW.shape[1]
    total_C = torch.zeros(channels, dtype=torch.float64)
    squares_C = torch.zeros(channels, dtype=torch.float64)
    for pixels_NCHW in torch.split(images.pixels_NCHW, _CHUNK):
        # Sums of integers in float64 are exact in any order of summation.
        values_NCHW = pixels_NCHW.double()
        total_C += values_NCHW.sum((0, 2, 3))
        squares_C += values_NCHW.square_().sum((0, 2, 3))
    count = images.pixels_NCHW.numel() / channels
    mean_C = total_C / count
    std_C = (squares_C / count - mean_C.square()).clamp_min(0.0).sqrt()
    std_C = torch.where(std_C > 0.0, std_C, 255.0)
    return tuple((mean_C / 255.0).tolist()), tuple((std_C / 255.0).tolist())


def digest(*splits: Split | None) -> str:
    """Return a digest of the shapes, inputs and labels of splits."""
    state = blake2b(digest_size=16)
    for split in splits:
        if split is None:
            state.update(b"none")
            continue
        state.update(repr(tuple(split.inputs.shape)).encode())
        for tensor in (split.inputs, split.labels):
            state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def example_input(shape: DataShape) -> Tensor:
    """Return two model inputs without values, on the meta device: images (2, C, H, W) or tokens (2, L)."""
    if isinstance(shape, TokenShape):
        return torch.empty(2, shape.length, dtype=torch.int64, device="meta")
    return torch.empty(2, shape.channels, shape.height, shape.width, device="meta")
