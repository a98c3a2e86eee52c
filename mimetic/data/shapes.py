"""Shapes of data sets, known before anything is loaded. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageShape:
    """Shape of a set of images."""

    channels: int
    height: int
    width: int
    num_classes: int


@dataclass(frozen=True, slots=True)
class TokenShape:
    """Shape of a set of token sequences.

    Attributes:
        channels: Size of the vocabulary: the one-hot width of an embedding's input.
        length: Tokens of a training sequence.
        num_classes: Size of the vocabulary: the number of possible targets.
    """

    channels: int
    length: int
    num_classes: int


DataShape = ImageShape | TokenShape

IMAGENET = ImageShape(3, 224, 224, 1000)
"""The shape for which a network is built where no data is given."""
