"""Tiny ImageNet: 200 classes of ImageNet at 64×64, from Stanford's course cs231n.

The labels of its test pictures were never published, so its 10,000 validation pictures are the test set.
"""

from pathlib import Path

import torch
from filelock import FileLock

from mimetic.data.config import TinyImagenet
from mimetic.data.dataset import DataShape
from mimetic.data.load import native_shape, root, root_advice, source
from mimetic.data.pictures import picture_pool
from mimetic.data.pool import Pool, Source
from mimetic.errors import UserError
from mimetic.models.torchvision_import import import_torchvision

_FOLDER = "tiny-imagenet-200"
_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
_SIDE = 64


@source.register
def tiny_imagenet(spec: TinyImagenet) -> Source:
    """Return the set as the archive lays it out: `wnids.txt`, `train/<id>/images`, `val/images`."""
    folder = root(spec) / _FOLDER
    if spec.download:
        _download(folder)
    listing = folder / "wnids.txt"
    if not listing.is_file():
        raise UserError(
            f"`tiny_imagenet` is not in {folder.absolute()}: wnids.txt, train/ and val/ are missing; unpack "
            f"{_URL} there, let `download: true` in the recipe's `data` fetch it, or {root_advice()}"
        )
    ids = sorted(listing.read_text(encoding="utf-8").split())
    return Source(_train(spec, folder, ids), _test(spec, folder, ids), len(ids))


@native_shape.register
def shape(_spec: TinyImagenet) -> DataShape:
    """Return 3×64×64, 200 classes."""
    return DataShape(3, _SIDE, _SIDE, 200)


def _train(spec: TinyImagenet, folder: Path, ids: list[str]) -> Pool:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(ids):
        found = sorted((folder / "train" / name / "images").glob("*.JPEG"))
        if not found:
            raise UserError(
                f"`tiny_imagenet`: {folder / 'train' / name / 'images'} holds no pictures; unpack again"
            )
        files += found
        labels += [label] * len(found)
    return picture_pool(files, torch.tensor(labels), side=_side(spec), name="tiny_imagenet")


def _test(spec: TinyImagenet, folder: Path, ids: list[str]) -> Pool:
    """Read `val_annotations.txt`: per line a picture's file name, its class, and a box, tab-separated."""
    annotations = folder / "val" / "val_annotations.txt"
    number = {name: label for label, name in enumerate(ids)}
    files: list[Path] = []
    labels: list[int] = []
    try:
        for line in annotations.read_text(encoding="utf-8").splitlines():
            file, name, *_ = line.split("\t")
            files.append(folder / "val" / "images" / file)
            labels.append(number[name])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"`tiny_imagenet`: {annotations} is missing or damaged ({error}); unpack again"
        ) from error
    if not files:
        raise UserError(f"`tiny_imagenet`: {annotations} is empty; unpack again")
    return picture_pool(files, torch.tensor(labels), side=_side(spec), name="tiny_imagenet")


def _side(spec: TinyImagenet) -> int:
    return _SIDE if spec.image_size is None else spec.image_size


def _download(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{_FOLDER}.lock"):
        if (folder / "wnids.txt").is_file():
            return
        fetch = import_torchvision().datasets.utils.download_and_extract_archive
        try:
            fetch(_URL, folder.parent, filename=f"{_FOLDER}.zip", md5=_MD5)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"`tiny_imagenet` could not be downloaded into {folder.parent.absolute()}: {error}; "
                f"check the connection, or unpack {_URL} there by hand"
            ) from error
