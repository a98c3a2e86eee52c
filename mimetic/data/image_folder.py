"""Image files in folders: a folder per class as in torchvision's ImageFolder, and Tiny ImageNet.

Files are listed here and decoded on demand by `pictures`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock

from mimetic.data.config import ImageFolder, TinyImagenet
from mimetic.data.dataset import ImageSet, ImageSource
from mimetic.data.files import ROOT_HINT, data_root
from mimetic.data.pictures import SUFFIXES, picture_size, picture_source
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.files import expand_home
from mimetic.models.published import import_library
from mimetic.streams import generator

_TEST_FOLDERS = ("test", "val")

_TINY = "tiny-imagenet-200"
_TINY_SIDE = 64
_TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def image_folder(spec: ImageFolder) -> ImageSet:
    """Load the images of a folder.

    `<path>/train/<class>/…` is the training set and `<path>/test/<class>/…` (or `val`) the test set. Without
    a test folder, the fraction `test_fraction` is split off, keyed by `split_seed`; without `train`, the
    class folders are directly in `<path>`. Classes are numbered alphabetically; images are read as RGB.
    """
    train_folder, test_folder = _folders(spec)
    classes = _classes(train_folder)
    everything = _class_folders(spec, train_folder, classes)
    if test_folder is not None:
        return ImageSet(everything, _class_folders(spec, test_folder, classes), len(classes))
    count = len(everything)
    if count == 1:
        raise UserError(
            f"`image_folder`: {train_folder} contains a single image, too few to split", code="MIM-D030"
        )
    num_test = min(max(round(spec.test_fraction * count), 1), count - 1)
    order_N = torch.randperm(count, generator=generator(spec.split_seed, "split", "held"))
    train, test = (everything.subset(part.sort().values) for part in (order_N[num_test:], order_N[:num_test]))
    return ImageSet(train, test, len(classes))


def folder_shape(spec: ImageFolder) -> ImageShape:
    """Return the number of classes and the size of the first image."""
    train_folder, _ = _folders(spec)
    classes = _classes(train_folder)
    height, width = picture_size(_files(train_folder / classes[0])[0])
    return ImageShape(3, height, width, len(classes))


def _folders(spec: ImageFolder) -> tuple[Path, Path | None]:
    """Return the folders of the training and the test classes."""
    folder = data_root(spec) / expand_home(spec.path)
    if not folder.is_dir():
        raise UserError(
            f"`image_folder`: there is no folder {folder.absolute()}; a relative `path` starts at the data "
            f"root, {ROOT_HINT}",
            code="MIM-D031",
        )
    train = folder / "train"
    if not train.is_dir():
        return folder, None
    return train, next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)


def _classes(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _ignored(path, folder))
    if not names:
        raise UserError(
            f"`image_folder`: {folder} has no sub-folders; it needs one folder of images per class",
            code="MIM-D032",
        )
    return names


def _class_folders(spec: ImageFolder, folder: Path, classes: Sequence[str]) -> ImageSource:
    present = _classes(folder)
    unknown = [name for name in present if name not in classes]
    if unknown:
        raise UserError(
            f"`image_folder`: class `{unknown[0]}` of {folder} does not occur among the training images",
            code="MIM-D033",
        )
    labelled = [(file, classes.index(name)) for name in present for file in _files(folder / name)]
    return _labelled_files(labelled, side=spec.image_size, name="image_folder")


def _files(folder: Path) -> list[Path]:
    """Return the images of a class folder and its sub-folders, at least one, in order of their paths."""
    found = _images(folder, "*")
    if not found:
        raise UserError(
            f"`image_folder`: {folder} contains no images ({', '.join(sorted(SUFFIXES))}); add some or "
            "remove it",
            code="MIM-D034",
        )
    return found


def _images(folder: Path, pattern: str) -> list[Path]:
    """Return the images below a folder whose names match, in order of their paths."""
    return sorted(
        path
        for path in folder.rglob(pattern)
        if path.suffix.lower() in SUFFIXES and not _ignored(path, folder) and path.is_file()
    )


def _ignored(path: Path, folder: Path) -> bool:
    """Return whether a path below a folder is hidden, or what macOS adds to an archive."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def _labelled_files(labelled: Sequence[tuple[Path, int]], *, side: int | None, name: str) -> ImageSource:
    files, labels = zip(*labelled, strict=True)
    return picture_source(files, torch.tensor(labels), side=side, name=name)


def tiny_imagenet(spec: TinyImagenet) -> ImageSet:
    """Load Tiny ImageNet (Stanford cs231n): 200 classes at 64×64, as its archive is laid out.

    The labels of its test images were never published, so its 10,000 validation images are the test set.
    """
    folder = data_root(spec) / _TINY
    if spec.download:
        _download_tiny_imagenet(folder)
    listing = folder / "wnids.txt"
    if not listing.is_file():
        raise UserError(
            f"`tiny_imagenet` is not in {folder.absolute()}: wnids.txt, train/ and val/ are missing; unpack "
            f"{_TINY_URL} there, let `download: true` in the recipe's `data` fetch it, or {ROOT_HINT}",
            code="MIM-D035",
        )
    ids = sorted(listing.read_text(encoding="utf-8").split())
    side = _TINY_SIDE if spec.image_size is None else spec.image_size
    train = _labelled_files(_tiny_train(folder, ids), side=side, name="tiny_imagenet")
    test = _labelled_files(_tiny_test(folder, ids), side=side, name="tiny_imagenet")
    return ImageSet(train, test, len(ids))


def _tiny_train(folder: Path, ids: Sequence[str]) -> list[tuple[Path, int]]:
    labelled: list[tuple[Path, int]] = []
    for label, name in enumerate(ids):
        images = folder / "train" / name / "images"
        found = _images(images, "*.JPEG")
        if not found:
            raise UserError(f"`tiny_imagenet`: {images} contains no images; unpack again", code="MIM-D036")
        labelled += [(file, label) for file in found]
    return labelled


def _tiny_test(folder: Path, ids: Sequence[str]) -> list[tuple[Path, int]]:
    """Read `val_annotations.txt`: per line an image's file name, its class and a box, tab-separated."""
    annotations = folder / "val" / "val_annotations.txt"
    number = {name: label for label, name in enumerate(ids)}
    labelled: list[tuple[Path, int]] = []
    try:
        for line in annotations.read_text(encoding="utf-8").splitlines():
            file, name, *_ = line.split("\t")
            labelled.append((folder / "val" / "images" / file, number[name]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"`tiny_imagenet`: {annotations} is missing or damaged ({error}); unpack again", code="MIM-D037"
        ) from error
    if not labelled:
        raise UserError(f"`tiny_imagenet`: {annotations} is empty; unpack again", code="MIM-D038")
    return labelled


def _download_tiny_imagenet(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{_TINY}.lock"):
        if (folder / "wnids.txt").is_file():
            return
        fetch = import_library("torchvision").datasets.utils.download_and_extract_archive
        try:
            fetch(_TINY_URL, folder.parent, filename=f"{_TINY}.zip", md5=_TINY_MD5)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"`tiny_imagenet` could not be downloaded into {folder.parent.absolute()}: {error}; "
                f"check the connection, or unpack {_TINY_URL} there by hand",
                code="MIM-D039",
            ) from error
