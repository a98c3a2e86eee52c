"""Tiny ImageNet in the layout of its archive."""

from pathlib import Path

import pytest
from PIL import Image

from mimetic.data.config import TinyImagenet
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError

IDS = ["n02", "n01", "n03"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write three classes of two training pictures and a test picture each."""
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(IDS), encoding="utf-8")
    lines = []
    for name in IDS:
        grey = 60 * int(name[1:])
        images = folder / "train" / name / "images"
        images.mkdir(parents=True)
        for i in range(2):
            picture = Image.new("L", (64, 64), grey)
            picture.convert("L" if i else "RGB").save(images / f"{name}_{i}.JPEG")
        Image.new("RGB", (64, 64), (grey,) * 3).save(folder / "val" / "images" / f"val_{name}.JPEG")
        lines.append(f"val_{name}.JPEG\t{name}\t0\t0\t62\t62")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_layout(base: Path) -> None:
    """Classes are numbered by sorted id; the validation pictures are the test set."""
    data = load_dataset(TinyImagenet(root=str(base)))

    for images in (data.train, data.test):
        levels = images.pixels_NCHW.float().mean((1, 2, 3))
        assert levels.tolist() == pytest.approx(
            [60.0 * (label + 1) for label in images.labels_N.tolist()], abs=2
        )
    assert (len(data.train), len(data.test), data.num_classes) == (6, 3, 3)


def test_shape_is_known_without_files() -> None:
    """The shape is told without looking."""
    assert describe_dataset(TinyImagenet(root="nowhere")) == ImageShape(3, 64, 64, 200)
    assert describe_dataset(TinyImagenet(root="nowhere", image_size=32)) == ImageShape(3, 32, 32, 200)


def test_smaller_images(base: Path) -> None:
    """`image_size` is decoded directly."""
    assert load_dataset(TinyImagenet(root=str(base), image_size=16)).train.pixels_NCHW.shape == (6, 3, 16, 16)


def test_missing(tmp_path: Path) -> None:
    """A missing set tells the folder, the archive and the repairs."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D035"):
        load_dataset(TinyImagenet(root=str(tmp_path)))


@pytest.mark.parametrize("content", ["", "val_n01.JPEG\n", "val_n01.JPEG\tn09\t0\t0\t1\t1\n", None])
def test_damaged_annotations(content: str | None, base: Path) -> None:
    """Annotations that are empty, cut or of unknown classes are told."""
    file = base / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    file.unlink() if content is None else file.write_text(content, encoding="utf-8")

    with pytest.raises(UserError, check=lambda error: error.code in ("MIM-D037", "MIM-D038")):
        load_dataset(TinyImagenet(root=str(base)))


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that fails tells what to unpack by hand; one that is there is not repeated."""
    from torchvision.datasets import utils

    def offline(*_args: object, **_named: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "download_and_extract_archive", offline)

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D039"):
        load_dataset(TinyImagenet(root=str(tmp_path / "new"), download=True))


def test_present_set_is_not_downloaded(base: Path) -> None:
    """`download: true` leaves a set alone that is there."""
    assert len(load_dataset(TinyImagenet(root=str(base), download=True)).train) == 6
