"""Published sets: small files in their formats, real files, and what is said where they are missing."""

import os
import pickle
import struct
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import CIFAR10, SVHN

from mimetic.data import published
from mimetic.data.config import Cifar10, Cifar100, FashionMnist, ImageData, Svhn
from mimetic.data.dataset import statistics
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.errors import UserError

DRAWS = np.random.default_rng(0)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take files whose checksums are not the published ones."""
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda _: None)
    monkeypatch.setattr(SVHN, "_check_integrity", lambda _: True)


def write_cifar(folder: Path, names: list[str], label_key: str) -> tuple[np.ndarray, list[int]]:
    """Write batches of four images each; return the pixels as (N, 3, 32, 32) and the labels."""
    folder.mkdir(exist_ok=True)
    pixels, labels = [], []
    for name in names:
        data = DRAWS.integers(0, 256, (4, 3072), dtype=np.uint8)
        numbers = DRAWS.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": data, label_key: numbers}))
        pixels.append(data)
        labels += numbers
    return np.concatenate(pixels).reshape(-1, 3, 32, 32), labels


def assert_holds(spec: ImageData, pixels: np.ndarray, labels: list[int]) -> None:
    """Hold the training images of a set against what was written."""
    data = load_dataset(spec)
    assert torch.equal(torch.from_numpy(pixels), data.train.pixels_NCHW)
    assert labels == data.train.labels_N.tolist()
    assert data.train.labels_N.dtype == torch.int64
    assert data.shape == describe_dataset(spec)


@pytest.mark.usefixtures("unchecked")
def test_cifar10_format(tmp_path: Path) -> None:
    """Rows of 3,072 bytes are three planes, in the order of the batches."""
    folder = tmp_path / "cifar-10-batches-py"
    pixels, labels = write_cifar(folder, [f"data_batch_{i}" for i in range(1, 6)], "labels")
    write_cifar(folder, ["test_batch"], "labels")

    assert_holds(Cifar10(root=str(tmp_path)), pixels, labels)


@pytest.mark.usefixtures("unchecked")
def test_cifar100_format(tmp_path: Path) -> None:
    """The fine labels are taken."""
    folder = tmp_path / "cifar-100-python"
    pixels, labels = write_cifar(folder, ["train"], "fine_labels")
    write_cifar(folder, ["test"], "fine_labels")

    assert_holds(Cifar100(root=str(tmp_path)), pixels, labels)


@pytest.mark.usefixtures("unchecked")
def test_svhn_format(tmp_path: Path) -> None:
    """Images are the last axis of the file, and its label 10 is the digit 0."""
    for split in ("train", "test"):
        pixels = DRAWS.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
        labels = np.array([[10], [1], [9], [10], [3]], dtype=np.uint8)
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": labels})
        if split == "train":
            expected = pixels.transpose(3, 2, 0, 1)

    assert_holds(Svhn(root=str(tmp_path)), expected, [0, 1, 9, 0, 3])


def write_fashion(root: Path) -> np.ndarray:
    """Write three images per split in the idx format; return the training pixels."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for split in ("t10k", "train"):
        pixels = DRAWS.integers(0, 256, (3, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 2051, 3, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = struct.pack(">II", 2049, 3) + bytes([4, 0, 9])
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    return pixels


def test_fashion_mnist_format(tmp_path: Path) -> None:
    """Grey images have one channel."""
    pixels = write_fashion(tmp_path)

    assert_holds(FashionMnist(root=str(tmp_path)), pixels[:, None], [4, 0, 9])


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        (Cifar10(), "cifar-10-batches-py/data_batch_1"),
        (Cifar100(), "cifar-100-python/train"),
        (Svhn(), "train_32x32.mat"),
        (FashionMnist(), "FashionMNIST/raw/train-images-idx3-ubyte"),
    ],
)
def test_missing_set(spec: ImageData, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing set tells the folder, the files and the three repairs."""
    monkeypatch.setenv("MIMETIC_DATA", str(tmp_path))

    with pytest.raises(UserError) as caught:
        load_dataset(spec)
    actual = str(caught.value)

    for part in (str(tmp_path), first, "`root`", "$MIMETIC_DATA", "`download: true`"):
        assert part in actual


def test_damaged_cifar(tmp_path: Path) -> None:
    """Files of the right names and the wrong content fail torchvision's check."""
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, [f"data_batch_{i}" for i in range(1, 6)], "labels")
    write_cifar(folder, ["test_batch", "batches.meta"], "labels")

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D042"):
        load_dataset(Cifar10(root=str(tmp_path)))


@pytest.mark.parametrize("keep", [3, 100, 1000])
def test_truncated_fashion_mnist(keep: int, tmp_path: Path) -> None:
    """A file cut short is told, not traced."""
    write_fashion(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D042"):
        load_dataset(FashionMnist(root=str(tmp_path)))


def test_other_images_under_the_same_names(tmp_path: Path) -> None:
    """Files that hold images of another size are refused."""
    write_fashion(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "test"
    for split in ("train", "t10k"):
        file = tmp_path / "FashionMNIST" / "raw" / f"{split}-images-idx3-ubyte"
        file.write_bytes(struct.pack(">IIII", 2051, 3, 8, 8) + bytes(3 * 64))

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D040"):
        load_dataset(FashionMnist(root=str(tmp_path)))


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that fails tells the folder and what to put there by hand."""

    def offline(self: CIFAR10) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", offline)

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D041"):
        load_dataset(Cifar10(root=str(tmp_path / "new"), download=True))


@pytest.mark.data
@pytest.mark.parametrize(
    ("spec", "folder"), [(Cifar10(), "cifar-10-batches-py"), (FashionMnist(), "FashionMNIST")]
)
def test_published_constants(spec: ImageData, folder: str) -> None:
    """The constants we normalize by are those measured on the full training set, to four digits."""
    if not (Path(os.environ["MIMETIC_DATA"]) / folder).is_dir():
        pytest.skip(f"{folder} is not in $MIMETIC_DATA")

    data = load_dataset(spec)
    mean, std = statistics(data.train)

    assert data.mean == pytest.approx(mean, abs=1e-4)
    assert data.std == pytest.approx(std, abs=1e-4)
    assert torch.bincount(data.test.labels_N).tolist() == [1000] * 10


@pytest.mark.parametrize("section", [Cifar10, Cifar100, FashionMnist, Svhn])
def test_a_section_names_the_files_that_are_read(section: type[ImageData]) -> None:
    """Which the digest of a complete study is made from."""
    patterns, files = section.files, published._SETS[section().type_name()].files
    assert patterns is not None
    assert all(any(fnmatch(file, pattern) for pattern in patterns) for file in files)
