"""A folder of pictures, one sub-folder per class, as torchvision's ImageFolder reads it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mimetic.data.config import ImageFolder
from mimetic.data.dataset import DataShape
from mimetic.data.load import native_shape, part, root, root_advice, source, split_for_testing
from mimetic.data.pictures import SUFFIXES, picture_pool, picture_size
from mimetic.data.pool import Pool, Source
from mimetic.errors import UserError

_TEST_FOLDERS = ("test", "val")


@source.register
def image_folder(spec: ImageFolder) -> Source:
    """Return the pictures of a folder.

    `<path>/train/<class>/…` are trained on and `<path>/test/<class>/…` (or `val`) tested on. Where there is
    no test folder, the share `test_fraction` of the pictures is held out, keyed by `split_seed`; where
    there is no `train`, the classes lie in `<path>` itself. Classes are numbered in alphabetical order;
    pictures are read as RGB.
    """
    train_folder, test_folder = _folders(spec)
    classes = _classes(train_folder)
    everything = _pool(spec, train_folder, classes)
    if test_folder is not None:
        return Source(everything, _pool(spec, test_folder, classes), len(classes))
    if len(everything) < 2:  # noqa: PLR2004 - one to train on, one to test on
        raise UserError(f"`image_folder`: {train_folder} holds a single picture, too few to split")
    train_M, test_M = split_for_testing(len(everything), spec.test_fraction, seed=spec.split_seed)
    return Source(part(everything, train_M), part(everything, test_M), len(classes))


@native_shape.register
def shape(spec: ImageFolder) -> DataShape:
    """Return the number of classes and the size of the first picture."""
    train_folder, _ = _folders(spec)
    classes = _classes(train_folder)
    height, width = picture_size(_filled(train_folder / classes[0])[0])
    return DataShape(3, height, width, len(classes))


def _folders(spec: ImageFolder) -> tuple[Path, Path | None]:
    """Return the folders of the training and the test classes."""
    folder = root(spec) / Path(spec.path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"`image_folder`: there is no folder {folder.absolute()}; a relative `path` starts at the data "
            f"root, {root_advice()}"
        )
    train = folder / "train"
    if not train.is_dir():
        return folder, None
    return train, next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)


def _classes(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(
            f"`image_folder`: {folder} has no sub-folders; it needs one folder of pictures per class"
        )
    return names


def _pool(spec: ImageFolder, folder: Path, classes: Sequence[str]) -> Pool:
    present = _classes(folder)
    unknown = [name for name in present if name not in classes]
    if unknown:
        raise UserError(
            f"`image_folder`: class `{unknown[0]}` of {folder} does not occur among the training pictures"
        )
    files: list[Path] = []
    labels: list[int] = []
    for name in present:
        found = _filled(folder / name)
        files += found
        labels += [classes.index(name)] * len(found)
    return picture_pool(files, torch.tensor(labels), side=spec.image_size, name="image_folder")


def _filled(folder: Path) -> list[Path]:
    """Return the pictures of a class and its sub-folders, at least one, in order of their paths."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UserError(f"`image_folder`: {folder} holds no pictures ({kinds}); fill or remove it")
    return found
