"""Images, loaded as uint8 in memory, split, and augmented in batches on the device; token sequences."""

from mimetic.data import (  # registers their sections with `source` and `native_shape`
    copying,
    digits,
    image_folder,
    noisy_digits,
    published,
    row_signal,
    synthetic,
    tiny_imagenet,
)
from mimetic.data.augment import Augment, augmenter, operation
from mimetic.data.dataset import (
    IGNORED,
    Dataset,
    DataShape,
    Images,
    Split,
    Tokens,
    TokenShape,
    digest,
    statistics,
)
from mimetic.data.load import describe, load, native_shape, source
from mimetic.data.mix import cutmix, mixup
from mimetic.data.pool import Pool, Source, in_memory

__all__ = [
    "IGNORED",
    "Augment",
    "DataShape",
    "Dataset",
    "Images",
    "Pool",
    "Source",
    "Split",
    "TokenShape",
    "Tokens",
    "augmenter",
    "copying",
    "cutmix",
    "describe",
    "digest",
    "digits",
    "image_folder",
    "in_memory",
    "load",
    "mixup",
    "native_shape",
    "noisy_digits",
    "operation",
    "published",
    "row_signal",
    "source",
    "statistics",
    "synthetic",
    "tiny_imagenet",
]
