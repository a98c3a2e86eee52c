"""From a data section of a recipe to a data set in memory.

Each type of images has two functions: one registered with `source`, which finds them, and one with
`native_shape`, which says their shape without loading them. Data of another kind registers with `load` and
`describe` themselves. What all types share is here: the data root, the
held-out split, subsets, resizing, statistics and the digest.
"""

import os
from dataclasses import replace
from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.data.config import AnyData, Data
from mimetic.data.dataset import Dataset, DataShape, Images, TokenShape, digest, statistics
from mimetic.data.pool import Pool, Source
from mimetic.errors import UserError
from mimetic.streams import generator

ROOT_VARIABLE = "MIMETIC_DATA"
_CHUNK = 2048


@singledispatch
def load_dataset(spec: AnyData) -> Dataset:
    """Load a data set and hold out a validation split; one registered function per kind of data.

    Raises:
        UserError: If files are missing or damaged, or more examples are asked for than there are.
    """
    raise UserError(f"data type `{spec.type_name()}` is known to the language but nothing here loads it")


@load_dataset.register
def _(spec: Data) -> Dataset:
    """Load a set of images, hold out a validation split, choose subsets and resize.

    The training images are put in an order keyed by `split_seed`: the first `val_size` of them are held
    out, the next `train_size` are trained on. So the two never meet, and a larger `train_size` contains a
    smaller one. Within a subset images keep the order of the set.

    Normalization is by the constants published for the set, or by what is measured on the images trained
    on (digits, folders, synthetic images).

    Raises:
        UserError: If files are missing or damaged, or more images are asked for than there are.
    """
    from mimetic.data import (  # noqa: F401
        digits,
        image_folder,
        noisy_digits,
        published,
        row_signal,
        synthetic,
        tiny_imagenet,
    )

    found = source(spec)
    name = spec.type_name()
    train_M, val_M = _split_training(spec, count=len(found.train))
    test_M = _subset(spec.test_size, count=len(found.test), seed=spec.split_seed, what="test", name=name)
    side = spec.image_size
    train = _resized(found.train.take(train_M), side)
    val = None if val_M is None else _resized(found.train.take(val_M), side)
    test = _resized(found.test.take(test_M), side)
    _check_same_shape(spec, train, test)
    mean, std = statistics(train) if found.published is None else found.published
    return Dataset(name, train, val, test, found.num_classes, mean, std, digest(train, val, test))


@singledispatch
def source(spec: Data) -> Source:
    """Return the images a section names; one registered function per section.

    Raises:
        UserError: If files are missing or damaged.
    """
    raise UserError(f"data type `{spec.type_name()}` is known to the language but nothing here loads it")


@singledispatch
def native_shape(spec: Data) -> DataShape:
    """Return the shape of a section's images as they are stored; one registered function per section."""
    raise UserError(f"data type `{spec.type_name()}` is known to the language but nothing here describes it")


@singledispatch
def describe_dataset(spec: AnyData) -> DataShape | TokenShape:
    """Return the shape of a data set's examples without loading them.

    Only `image_folder` looks at its folder: at the names of the classes and the size of one image.

    Raises:
        UserError: If that folder is missing.
    """
    raise UserError(f"data type `{spec.type_name()}` is known to the language but nothing here describes it")


@describe_dataset.register
def _(spec: Data) -> DataShape:
    from mimetic.data import (  # noqa: F401
        digits,
        image_folder,
        noisy_digits,
        published,
        row_signal,
        synthetic,
        tiny_imagenet,
    )

    shape = native_shape(spec)
    side = spec.image_size
    return shape if side is None else replace(shape, height=side, width=side)


def root(spec: Data) -> Path:
    """Return the folder that holds data sets: the section's `root`, `$MIMETIC_DATA`, or ./data."""
    given = os.environ.get(ROOT_VARIABLE, "data") if spec.root is None else spec.root
    return Path(given).expanduser()


def root_advice() -> str:
    """Say how the folder that holds data sets is set."""
    return f"set the folder with `root` in the recipe's `data` or with ${ROOT_VARIABLE} (otherwise ./data)"


def _split_training(spec: Data, *, count: int) -> tuple[Tensor, Tensor | None]:
    """Return sorted indices of the images to train on and of those held out."""
    left = count - spec.val_size
    wanted = left if spec.train_size is None else spec.train_size
    if left <= 0 or wanted > left:
        asked = f"val_size {spec.val_size}"
        asked += "" if spec.train_size is None else f" and train_size {spec.train_size}"
        raise UserError(
            f"`{spec.type_name()}` has {count} training images, too few for {asked}; ask for fewer"
        )
    order_N = torch.randperm(count, generator=generator(spec.split_seed, "split", "train"))
    train_M = order_N[spec.val_size : spec.val_size + wanted].sort().values
    held_M = order_N[: spec.val_size].sort().values if spec.val_size else None
    return train_M, held_M


def _subset(size: int | None, *, count: int, seed: int, what: str, name: str) -> Tensor:
    if size is not None and size > count:
        raise UserError(f"`{name}` has {count} {what} images, too few for {what}_size {size}; ask for fewer")
    order_N = torch.randperm(count, generator=generator(seed, "split", what))
    return order_N[:size].sort().values


def _resized(images: Images, side: int | None) -> Images:
    """Resize to side × side, bilinear with antialiasing; uint8 stays uint8."""
    if side is None or tuple(images.pixels_NCHW.shape[2:]) == (side, side):
        return images
    parts = [
        functional.interpolate(part, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        for part in torch.split(images.pixels_NCHW, _CHUNK)
    ]
    return Images(torch.cat(parts), images.labels_N)


def _check_same_shape(spec: Data, train: Images, test: Images) -> None:
    shapes = [tuple(images.pixels_NCHW.shape[1:]) for images in (train, test)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"`{spec.type_name()}`: training images have shape {shapes[0]} and test images {shapes[1]}; "
            "set `image_size`"
        )


def split_for_testing(count: int, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return sorted indices of the images kept and of those held out for testing, at least one of each."""
    held = min(max(round(fraction * count), 1), count - 1)
    order_N = torch.randperm(count, generator=generator(seed, "split", "held"))
    return order_N[held:].sort().values, order_N[:held].sort().values


def part(pool: Pool, indices_M: Tensor) -> Pool:
    """Return a pool of some of the images of another."""
    return Pool(pool.labels_N[indices_M], lambda chosen: pool.read(indices_M[chosen]))
