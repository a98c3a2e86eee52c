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

    The vocabulary is both the one-hot width of an embedding's input and the number of classes; `length` is
    that of a training sequence.
    """

    channels: int
    length: int
    num_classes: int


DataShape = ImageShape | TokenShape

IMAGENET = ImageShape(3, 224, 224, 1000)
"""The shape for which a network is built where no data is given."""
