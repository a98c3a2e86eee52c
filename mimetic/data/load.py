"""Load the data set that a section describes, or describe it without loading.

A data set is one section in `mimetic.data.config` and one function that loads it (protocol `DataLoader`).
Image sets only return what is stored; the data root, the validation split, subsets, resizing, statistics
and the digest are applied here.
"""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.config.registry import implementation
from mimetic.data.config import DataSection, ImageData
from mimetic.data.dataset import Dataset, Images, ImageSet, digest, statistics
from mimetic.data.shapes import DataShape, ImageShape
from mimetic.errors import UserError
from mimetic.streams import generator

_CHUNK = 2048


class DataLoader(Protocol):
    """Function behind a data section: `def digits(spec: Digits) -> ImageSet`.

    Returns an `ImageSet` for sections derived from `ImageData`, otherwise a complete `Dataset`. Raises
    UserError if files are missing or damaged.
    """

    def __call__(self, spec: DataSection, /) -> ImageSet | Dataset:
        """Load the data set."""
        ...


def load_dataset(spec: DataSection) -> Dataset:
    """Load a data set.

    Of an image set, the training images are permuted by a key of `split_seed`: the first `val_size` are the
    validation split, the next `train_size` the training split. So the two are disjoint, and a larger
    `train_size` contains a smaller one. Images of a subset stay in the order of the set. The normalization
    constants are those published for the set, or measured on the training split.

    Raises:
        UserError: If files are missing or damaged, or the set has fewer images than requested.
    """
    load: DataLoader = implementation(spec)
    loaded = load(spec)
    if isinstance(loaded, Dataset):
        return loaded
    if not isinstance(spec, ImageData):
        raise TypeError(f"`{spec.type_name()}` loads an ImageSet, so its section must derive from ImageData")
    return _finish(spec, loaded)


def describe_dataset(spec: DataSection) -> DataShape:
    """Return the shape of a data set's examples, without loading it if its section knows the shape.

    Raises:
        UserError: If the shape is read from files and they are missing.
    """
    shape = spec.native_shape()
    if "shape_impl" in spec.functions:
        shape = implementation(spec, "shape_impl")(spec)
    if shape is None:
        return load_dataset(spec).shape
    if not isinstance(shape, ImageShape) or not isinstance(spec, ImageData):
        return shape
    shape = replace(shape, channels=_num_channels(spec, shape.channels))
    side = spec.image_size
    return shape if side is None else replace(shape, height=side, width=side)


def _finish(spec: ImageData, stored: ImageSet) -> Dataset:
    """Split, subset, convert, resize and normalize a stored set."""
    name = spec.type_name()
    train_M, val_M = _split_training(spec, count=len(stored.train))
    test_M = _test_subset(spec, count=len(stored.test))
    train = _converted(spec, stored.train.take(train_M))
    val = None if val_M is None else _converted(spec, stored.train.take(val_M))
    test = _converted(spec, stored.test.take(test_M))
    train_shape, test_shape = (tuple(images.pixels_NCHW.shape[1:]) for images in (train, test))
    if train_shape != test_shape:
        raise UserError(
            f"`{name}`: training images have shape {train_shape} and test images {test_shape}; "
            "set `image_size`",
            code="MIM-D001",
        )
    if stored.normalization is None:
        mean, std = statistics(train)
    else:
        mean, std = (_repeated(values, train_shape[0]) for values in stored.normalization)
    return Dataset(name, train, val, test, stored.num_classes, mean, std, digest(train, val, test))


def _split_training(spec: ImageData, *, count: int) -> tuple[Tensor, Tensor | None]:
    """Return sorted indices of the training and the validation images."""
    available = count - spec.val_size
    train_size = available if spec.train_size is None else spec.train_size
    if available <= 0 or train_size > available:
        requested = "" if spec.train_size is None else f" and train_size {spec.train_size}"
        raise UserError(
            f"`{spec.type_name()}` has {count} training images, too few for val_size {spec.val_size}"
            f"{requested}; request fewer",
            code="MIM-D002",
        )
    order_N = torch.randperm(count, generator=generator(spec.split_seed, "split", "train"))
    train_M = order_N[spec.val_size : spec.val_size + train_size].sort().values
    val_M = order_N[: spec.val_size].sort().values if spec.val_size else None
    return train_M, val_M


def _test_subset(spec: ImageData, *, count: int) -> Tensor:
    """Return sorted indices of the test images."""
    if spec.test_size is not None and spec.test_size > count:
        raise UserError(
            f"`{spec.type_name()}` has {count} test images, too few for test_size {spec.test_size}; "
            "request fewer",
            code="MIM-D003",
        )
    order_N = torch.randperm(count, generator=generator(spec.split_seed, "split", "test"))
    return order_N[: spec.test_size].sort().values


def _converted(spec: ImageData, images: Images) -> Images:
    """Return images of the size and the channels that a section asks for."""
    images = _resize(images, spec.image_size)
    stored = images.pixels_NCHW.shape[1]
    channels = _num_channels(spec, stored)
    if channels == stored:
        return images
    return Images(images.pixels_NCHW.expand(-1, channels, -1, -1).contiguous(), images.labels_N)


def _num_channels(spec: ImageData, stored: int) -> int:
    """Return the number of channels of the images that a section gives."""
    if spec.channels is None or stored == spec.channels:
        return stored
    if stored != 1:
        raise UserError(
            f"`{spec.type_name()}` has images of {stored} channels, and only grey ones are repeated over "
            f"{spec.channels}; remove `channels`",
            code="MIM-D052",
        )
    return spec.channels


def _repeated(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return a value for each channel: those of a grey set are repeated."""
    return values * channels if len(values) == 1 else values


def _resize(images: Images, side: int | None) -> Images:
    """Resize to side × side, bilinear with antialiasing; uint8 stays uint8."""
    if side is None or tuple(images.pixels_NCHW.shape[2:]) == (side, side):
        return images
    parts = [
        functional.interpolate(part, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        for part in torch.split(images.pixels_NCHW, _CHUNK)
    ]
    return Images(torch.cat(parts), images.labels_N)
