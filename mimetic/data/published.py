"""CIFAR-10, CIFAR-100, SVHN and Fashion-MNIST, checked and downloaded by torchvision.

Means and standard deviations are those in common use: over all pixels of the full training set, in units of
[0, 1], to four digits.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from torch import Tensor

from mimetic.data.config import ImageData
from mimetic.data.dataset import ImageSet, ImageSource
from mimetic.data.files import ROOT_HINT, data_root
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.models.published import import_library

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


@dataclass(frozen=True, slots=True)
class Published:
    """A data set of torchvision.

    `reader` is a name in `torchvision.datasets`, which reads `files` below the data root; `splits` are its
    arguments for the training and the test images. `tensors` converts a reader into pixels (N, C, H, W) and
    labels.
    """

    reader: str
    files: tuple[str, ...]
    splits: tuple[Mapping[str, object], Mapping[str, object]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tensors: Callable[["VisionDataset"], tuple[Tensor, Tensor]]


def _cifar(reader: "VisionDataset") -> tuple[Tensor, Tensor]:
    return torch.from_numpy(reader.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(reader.targets)


def _svhn(reader: "VisionDataset") -> tuple[Tensor, Tensor]:
    return torch.from_numpy(reader.data).contiguous(), torch.from_numpy(reader.labels)


def _mnist(reader: "VisionDataset") -> tuple[Tensor, Tensor]:
    return reader.data[:, None].contiguous(), reader.targets.long()


_TRAIN_FLAG = ({"train": True}, {"train": False})
_SETS: dict[str, Published] = {
    "cifar10": Published(
        reader="CIFAR10",
        files=tuple(
            f"cifar-10-batches-py/{name}"
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
        splits=_TRAIN_FLAG,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        tensors=_cifar,
    ),
    "cifar100": Published(
        reader="CIFAR100",
        files=tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
        splits=_TRAIN_FLAG,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        tensors=_cifar,
    ),
    "svhn": Published(
        reader="SVHN",
        files=("train_32x32.mat", "test_32x32.mat"),
        splits=({"split": "train"}, {"split": "test"}),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        tensors=_svhn,
    ),
    "fashion_mnist": Published(
        reader="FashionMNIST",
        files=tuple(
            f"FashionMNIST/raw/{split}-{what}-ubyte"
            for split in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ),
        splits=_TRAIN_FLAG,
        mean=(0.2860,),
        std=(0.3530,),
        tensors=_mnist,
    ),
}


def published(spec: ImageData) -> ImageSet:
    """Load a published set in its own training and test division."""
    known, folder, shape = _SETS[spec.type_name()], data_root(spec), spec.native_shape()
    assert isinstance(shape, ImageShape)
    lock: AbstractContextManager[object] = nullcontext()
    if spec.download:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{spec.type_name()}.lock")
    with lock:
        train, test = (_split(spec, known, folder, split, shape) for split in known.splits)
    return ImageSet(train, test, shape.num_classes, (known.mean, known.std))


def _split(
    spec: ImageData, known: Published, folder: Path, split: Mapping[str, object], shape: ImageShape
) -> ImageSource:
    read = getattr(import_library("torchvision").datasets, known.reader)
    try:
        reader = read(root=folder, download=spec.download, **split)
        pixels_NCHW, labels_N = known.tensors(reader)
    except Exception as error:  # a damaged file may raise anything
        raise _read_error(spec, known, folder, error) from error
    found = tuple(pixels_NCHW.shape[1:])
    if found != (shape.channels, shape.height, shape.width):
        raise UserError(
            f"`{spec.type_name()}`: {folder} contains images of shape {found}; "
            "it is another set with the same file names",
            code="MIM-D040",
        )
    return ImageSource.in_memory(pixels_NCHW, labels_N)


def _read_error(spec: ImageData, known: Published, folder: Path, error: Exception) -> UserError:
    name, where = spec.type_name(), folder.absolute()
    missing = [file for file in known.files if not (folder / file).is_file()]
    if spec.download:
        return UserError(
            f"`{name}` could not be downloaded into {where}: {error}; "
            f"check the connection, or put the files there by hand: {', '.join(known.files)}",
            code="MIM-D041",
        )
    if not missing:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(
            f"`{name}` in {where} is damaged ({reason}); delete its files "
            "and fetch them again with `download: true`",
            code="MIM-D042",
        )
    no_folder = "" if folder.is_dir() else " (no such folder)"
    return UserError(
        f"`{name}` is not in {where}{no_folder}, missing: {', '.join(missing)}; "
        f"put the files there, fetch them with `download: true` in the recipe's `data`, or {ROOT_HINT}",
        code="MIM-D043",
    )
