"""What a loaded data set is: images or token sequences in memory, split, with what reading them needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mimetic.errors import UserError

_CHUNK = 4096
"""Images converted at once where statistics are measured: bounds memory."""

IGNORED = -100
"""Label of a position nothing is asked at: torch's own."""


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

    @property
    def inputs(self) -> Tensor:
        """Return what a model reads once it is decoded, example by example."""
        return self.pixels_NCHW

    @property
    def labels(self) -> Tensor:
        """Return the right answers."""
        return self.labels_N

    def asked(self, chosen_M: Tensor | None = None) -> int:
        """Return how many answers are asked for by some of the images, or all: one each."""
        return len(self) if chosen_M is None else len(chosen_M)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Sequences of tokens, and the token to be answered at some positions of each.

    Attributes:
        tokens_NL: Tokens, int64.
        labels_NL: The right answer after each token, int64; `IGNORED` where none is asked.
    """

    tokens_NL: Tensor
    labels_NL: Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.tokens_NL)

    @property
    def inputs(self) -> Tensor:
        """Return what a model reads."""
        return self.tokens_NL

    @property
    def labels(self) -> Tensor:
        """Return the right answers."""
        return self.labels_NL

    def asked(self, chosen_M: Tensor | None = None) -> int:
        """Return how many answers are asked for by some of the sequences, or all."""
        labels = self.labels_NL if chosen_M is None else self.labels_NL.index_select(0, chosen_M)
        return int((labels != IGNORED).sum().item())


Split = Images | Tokens
"""Examples a model is trained or tested on."""


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

    def example(self) -> Tensor:
        """Return two images without values, on the meta device."""
        return torch.empty(2, self.channels, self.height, self.width, device="meta")


@dataclass(frozen=True, slots=True)
class TokenShape:
    """Shape of a set of sequences, known before they are made.

    Attributes:
        channels: Tokens there are: what an embedding's input has, one-hot.
        length: Tokens of a sequence trained on.
        num_classes: Tokens there are: what is answered.
    """

    channels: int
    length: int
    num_classes: int

    def example(self) -> Tensor:
        """Return two sequences without values, on the meta device."""
        return torch.empty(2, self.length, dtype=torch.int64, device="meta")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set, split.

    Attributes:
        name: Registered name, e.g. `cifar10`.
        train: Examples to train on.
        val: Examples held out of them, or None.
        test: Examples to test on.
        num_classes: Number of classes.
        mean: Mean per channel of pixels scaled to [0, 1], to normalize by; empty for tokens.
        std: Standard deviation per channel, in the same units.
        digest: Digest of the inputs and labels of all splits: equal digests, equal data.
        probes: More examples to test on, by split and a name of theirs, e.g. ("test", "len64").
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
    def shape(self) -> DataShape | TokenShape:
        """Return the shape of the examples."""
        if isinstance(self.train, Tokens):
            return TokenShape(self.num_classes, self.train.tokens_NL.shape[1], self.num_classes)
        _, channels, height, width = self.train.pixels_NCHW.shape
        return DataShape(channels, height, width, self.num_classes)

    def pixels(self, count: int) -> Tensor:
        """Return the first training images, uint8 (N, C, H, W).

        Raises:
            UserError: If the set holds no images.
        """
        if isinstance(self.train, Tokens):
            raise UserError(
                f"`{self.name}` holds sequences of tokens, and this needs images; choose other data"
            )
        return self.train.pixels_NCHW[:count]

    def splits(self) -> dict[tuple[str, str], Split]:
        """Return what is evaluated, by split and name of a probe (empty for the split itself)."""
        own = {("val", ""): self.val, ("test", ""): self.test}
        return {**{name: split for name, split in own.items() if split is not None}, **self.probes}


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


def digest(*splits: Split | None) -> str:
    """Return a digest of splits: their shapes, inputs and labels."""
    state = blake2b(digest_size=16)
    for split in splits:
        if split is None:
            state.update(b"none")
            continue
        state.update(repr(tuple(split.inputs.shape)).encode())
        for tensor in (split.inputs, split.labels):
            content: Any = tensor.contiguous().numpy()
            state.update(content)
    return state.hexdigest()
