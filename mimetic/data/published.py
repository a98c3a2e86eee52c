"""CIFAR-10, CIFAR-100, SVHN and Fashion-MNIST through torchvision, which checks and downloads them.

Means and standard deviations are those the field uses: over all pixels of the full training set, in units of
[0, 1], to four digits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from mimetic.data.config import Cifar10, Cifar100, Data, FashionMnist, Svhn
from mimetic.data.dataset import DataShape
from mimetic.data.load import native_shape, root, root_advice, source
from mimetic.data.pool import Pool, Source, in_memory
from mimetic.errors import UserError
from mimetic.models.torchvision_import import import_torchvision


@dataclass(frozen=True, slots=True)
class Published:
    """What we know of a set before reading it.

    Attributes:
        reader: Name in `torchvision.datasets`.
        files: Files torchvision reads, below the data root.
        splits: Arguments of the reader for the training and the test images.
        shape: Shape of the images.
        mean: Mean per channel over the training set.
        std: Standard deviation per channel over the training set.
        tensors: Turns a reader into pixels NCHW and labels.
    """

    reader: str
    files: tuple[str, ...]
    splits: tuple[dict[str, Any], dict[str, Any]]
    shape: DataShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tensors: Callable[[Any], tuple[Tensor, Tensor]]


def _cifar(reader: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(reader.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(reader.targets)


def _svhn(reader: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(reader.data).contiguous(), torch.from_numpy(reader.labels)


def _mnist(reader: Any) -> tuple[Tensor, Tensor]:
    return reader.data[:, None].contiguous(), reader.targets.long()


_TRAIN_FLAG = ({"train": True}, {"train": False})
_SETS: dict[type[Data], Published] = {
    Cifar10: Published(
        reader="CIFAR10",
        files=tuple(
            f"cifar-10-batches-py/{name}"
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
        splits=_TRAIN_FLAG,
        shape=DataShape(3, 32, 32, 10),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        tensors=_cifar,
    ),
    Cifar100: Published(
        reader="CIFAR100",
        files=tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
        splits=_TRAIN_FLAG,
        shape=DataShape(3, 32, 32, 100),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        tensors=_cifar,
    ),
    Svhn: Published(
        reader="SVHN",
        files=("train_32x32.mat", "test_32x32.mat"),
        splits=({"split": "train"}, {"split": "test"}),
        shape=DataShape(3, 32, 32, 10),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        tensors=_svhn,
    ),
    FashionMnist: Published(
        reader="FashionMNIST",
        files=tuple(
            f"FashionMNIST/raw/{split}-{what}-ubyte"
            for split in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ),
        splits=_TRAIN_FLAG,
        shape=DataShape(1, 28, 28, 10),
        mean=(0.2860,),
        std=(0.3530,),
        tensors=_mnist,
    ),
}


@source.register(Cifar10)
@source.register(Cifar100)
@source.register(Svhn)
@source.register(FashionMnist)
def published(spec: Data) -> Source:
    """Return a published set, in its own division into training and test images."""
    known = _SETS[type(spec)]
    folder = root(spec)
    if spec.download:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{spec.type_name()}.lock"):
            train, test = (_pool(spec, known, folder, split) for split in known.splits)
    else:
        train, test = (_pool(spec, known, folder, split) for split in known.splits)
    return Source(train, test, known.shape.num_classes, (known.mean, known.std))


@native_shape.register(Cifar10)
@native_shape.register(Cifar100)
@native_shape.register(Svhn)
@native_shape.register(FashionMnist)
def shape(spec: Data) -> DataShape:
    """Return the published shape."""
    return _SETS[type(spec)].shape


def _pool(spec: Data, known: Published, folder: Path, split: dict[str, Any]) -> Pool:
    read = getattr(import_torchvision().datasets, known.reader)
    try:
        reader = read(root=folder, download=spec.download, **split)
        pixels_NCHW, labels_N = known.tensors(reader)
    except Exception as error:  # a damaged file fails wherever its bytes first make no sense
        raise UserError(_advice(spec, known, folder, error)) from error
    if tuple(pixels_NCHW.shape[1:]) != (known.shape.channels, known.shape.height, known.shape.width):
        raise UserError(
            f"`{spec.type_name()}`: {folder} holds images of shape {tuple(pixels_NCHW.shape[1:])}; "
            "it is another set under the same file names"
        )
    return in_memory(pixels_NCHW, labels_N)


def _advice(spec: Data, known: Published, folder: Path, error: Exception) -> str:
    name = spec.type_name()
    missing = [file for file in known.files if not (folder / file).is_file()]
    if spec.download:
        return (
            f"`{name}` could not be downloaded into {folder.absolute()}: {error}; "
            f"check the connection, or put the files there by hand: {', '.join(known.files)}"
        )
    if not missing:
        return (
            f"`{name}` in {folder.absolute()} is damaged ({_first_line(error)}); delete its files "
            "and fetch them again, `download: true` does that"
        )
    absent = "" if folder.is_dir() else ", a folder that does not exist"
    return (
        f"`{name}` is not in {folder.absolute()}{absent}: {', '.join(missing)} {_are(missing)} missing; "
        f"put the files there, let `download: true` in the recipe's `data` fetch them, "
        f"or {root_advice()}"
    )


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
