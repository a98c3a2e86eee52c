"""Folders of pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from mimetic.data.config import ImageFolder
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.data.pictures import _rgb
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError


def paint(file: Path, color: tuple[int, int, int], size: tuple[int, int] = (6, 6)) -> None:
    """Write a picture of one colour; size is width and height."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two classes of five pictures; red ones and blue ones."""
    for i in range(5):
        paint(tmp_path / "pictures" / "red" / f"{i}.png", (200 + i, 0, 0))
        paint(tmp_path / "pictures" / "blue" / "deep" / f"{i}.PNG", (0, 0, 200 + i))
    (tmp_path / "pictures" / "red" / "notes.txt").write_text("not a picture", encoding="utf-8")
    return tmp_path


def spec(folder: Path, **asked: object) -> ImageFolder:
    """Return the section for the fixture's folder."""
    return ImageFolder(root=str(folder), path="pictures", **asked)


def test_classes_and_held_out_pictures(folder: Path) -> None:
    """Classes are numbered alphabetically, and a fifth of the pictures is held out."""
    data = load_dataset(spec(folder))
    blue_N = data.train.pixels_NCHW[:, 2].amax((1, 2)) > 0

    assert (len(data.train), len(data.test), data.num_classes) == (8, 2, 2)
    assert torch.equal(blue_N, data.train.labels_N == 0)
    assert describe_dataset(spec(folder)) == data.shape == ImageShape(3, 6, 6, 2)


def test_test_fraction(folder: Path) -> None:
    """Another share is held out when asked for, at least one picture either way."""
    expected = [(5, 5), (9, 1), (1, 9)]

    loaded = [load_dataset(spec(folder, test_fraction=fraction)) for fraction in (0.5, 0.0, 1.0)]

    assert expected == [(len(data.train), len(data.test)) for data in loaded]


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_test_folders(name: str, folder: Path) -> None:
    """Where there are `train` and `test` (or `val`), they are used, and a class may lack test pictures."""
    base = folder / "split" / "pictures"
    paint(base / "train" / "a" / "1.png", (1, 0, 0))
    paint(base / "train" / "b" / "1.png", (2, 0, 0))
    paint(base / name / "b" / "1.png", (3, 0, 0))

    data = load_dataset(spec(folder / "split"))

    assert data.train.labels_N.tolist() == [0, 1]
    assert data.test.labels_N.tolist() == [1]
    assert data.test.pixels_NCHW[0, 0, 0, 0] == 3


def test_resize_cuts_the_center(folder: Path) -> None:
    """Pictures of any size are resized by the shorter side; the sides are cut away."""
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 6:18] = 255  # the filter reaches a little beyond the cut, as in Resize + CenterCrop
    Image.fromarray(wide).save(folder / "pictures" / "red" / "wide.png")

    data = load_dataset(spec(folder, image_size=4))
    everything = torch.cat([data.train.pixels_NCHW, data.test.pixels_NCHW])

    assert tuple(everything.shape) == (11, 3, 4, 4)
    assert any(bool((image == 255).all()) for image in everything)
    assert describe_dataset(spec(folder, image_size=4)) == data.shape


def test_only_the_subset_is_decoded(folder: Path) -> None:
    """Pictures outside the subset are not read."""
    data = load_dataset(spec(folder, train_size=1, test_size=1))
    for file in folder.rglob("*.[pP][nN][gG]"):
        if not any(
            np.array_equal(np.asarray(Image.open(file)), image.permute(1, 2, 0))
            for image in (data.train.pixels_NCHW[0], data.test.pixels_NCHW[0])
        ):
            file.write_bytes(b"")

    again = load_dataset(spec(folder, train_size=1, test_size=1, image_size=6))

    assert again.digest == data.digest


def test_grey_and_transparent_pictures_become_rgb(folder: Path) -> None:
    """Every mode is read as three channels."""
    for mode in ("L", "RGBA", "P", "1", "CMYK"):
        file = folder / "pictures" / "red" / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (6, 6)).save(file)

    assert load_dataset(spec(folder)).train.pixels_NCHW.shape[1:] == (3, 6, 6)


MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "LA", "PA", "RGBX", "La", "RGBa")
MODES += ("I;16", "I;16L", "I;16B", "I;16N")

RAMP_HW = np.linspace(0.0, 1.0, 36).reshape(6, 6)
"""Grey values from black to white, as fractions."""


def of_mode(mode: str) -> Image.Image:
    """Return the ramp in one of Pillow's modes."""
    if mode == "F":
        return Image.fromarray(RAMP_HW.astype(np.float32))
    if mode.startswith("I;16"):
        order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
        return Image.frombytes(mode, (6, 6), np.rint(RAMP_HW * 65535).astype(order).tobytes())
    if mode == "I":
        grey = Image.fromarray(np.rint(RAMP_HW * 65535).astype(np.int32))
        grey.format = "PPM"
        return grey
    grey = Image.fromarray(np.rint(RAMP_HW * 255).astype(np.uint8))
    straight = {"La": "LA", "RGBa": "RGBA", "PA": "LA", "HSV": "RGB"}.get(mode)
    return (grey if straight is None else grey.convert(straight)).convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_its_grey_values(mode: str) -> None:
    """No mode is clipped: 16-bit and float values are scaled."""
    rgb_HWC = np.asarray(_rgb(of_mode(mode)))

    if mode == "1":
        assert set(rgb_HWC.flatten()) <= {0, 255}
    else:
        assert np.abs(rgb_HWC - RAMP_HW[..., None] * 255.0).max() <= 2.0


def test_sixteen_bits_and_floats_from_files(folder: Path) -> None:
    """The same holds through files; what has no known range is refused by name."""
    pictures = folder / "deep" / "pictures"
    (pictures / "a").mkdir(parents=True)
    of_mode("I;16").save(pictures / "a" / "0.png")
    of_mode("F").save(pictures / "a" / "1.tif")
    expected_HW = torch.from_numpy(np.rint(RAMP_HW * 255).astype(np.uint8))

    data = load_dataset(spec(folder / "deep", test_fraction=0.5))

    for part in (data.train, data.test):
        assert torch.equal(part.pixels_NCHW, expected_HW.expand(1, 3, 6, 6))

    for index, bad in enumerate((of_mode("F").point(lambda v: v * 255.0), of_mode("I"))):
        bad.save(pictures / "a" / "1.tif")
        with pytest.raises(UserError, match=r"1\.tif") as caught:
            load_dataset(spec(folder / "deep", test_fraction=0.5))
        assert caught.value.code == "MIM-D050", index


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_shown(orientation: int, folder: Path) -> None:
    """The orientation that a camera writes into a picture is applied, also to its planned size."""
    pictures = folder / "turned" / "pictures" / "a"
    pictures.mkdir(parents=True)
    values_HW = np.arange(15, dtype=np.uint8).reshape(3, 5) * 10
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    for index in range(2):
        Image.fromarray(values_HW).save(pictures / f"{index}.png", exif=exif)
    with Image.open(pictures / "0.png") as image:
        shown_HW = np.array(ImageOps.exif_transpose(image))

    data = load_dataset(spec(folder / "turned"))

    assert describe_dataset(spec(folder / "turned")) == data.shape
    assert np.array_equal(data.train.pixels_NCHW[0, 0].numpy(), shown_HW)


@pytest.mark.parametrize("name", ["red/._0.png", "red/.ipynb_checkpoints/0.png", "__MACOSX/red/._0.png"])
def test_hidden_files_are_no_pictures(name: str, folder: Path) -> None:
    """Files that macOS and notebooks leave beside pictures are ignored."""
    hidden = folder / "pictures" / name
    hidden.parent.mkdir(parents=True, exist_ok=True)
    hidden.write_bytes(b"\0\5\x16\7")

    data = load_dataset(spec(folder))

    assert (len(data.train) + len(data.test), data.num_classes) == (10, 2)


def test_sizes_that_differ(folder: Path) -> None:
    """Without `image_size` all pictures must agree."""
    paint(folder / "pictures" / "red" / "zz.png", (9, 9, 9), size=(7, 6))

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D053"):
        load_dataset(spec(folder))


def test_test_pictures_of_another_size(folder: Path) -> None:
    """Training and test pictures must agree too."""
    paint(folder / "x" / "pictures" / "train" / "a" / "1.png", (1, 0, 0))
    paint(folder / "x" / "pictures" / "test" / "a" / "1.png", (1, 0, 0), size=(5, 5))

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D001"):
        load_dataset(spec(folder / "x"))


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    """Missing folders, empty classes, unknown test classes and broken pictures are told by name."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D031"):
        load_dataset(ImageFolder(root=str(tmp_path), path="elsewhere"))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D032"):
        describe_dataset(ImageFolder(root=str(tmp_path), path="pictures/red"))
    broken = folder / "pictures" / "red" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D050"):
        load_dataset(spec(folder))
    (folder / "pictures" / "green").mkdir()
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D034"):
        load_dataset(spec(folder))
    paint(folder / "y" / "pictures" / "train" / "a" / "1.png", (1, 0, 0))
    paint(folder / "y" / "pictures" / "test" / "b" / "1.png", (1, 0, 0))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D033"):
        load_dataset(spec(folder / "y"))


def test_postscript_is_not_interpreted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is decoded in a format of pictures, whatever it claims: none that runs a program."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was run"))
    Image.new("RGB", (6, 6)).save(folder / "a.eps")
    (folder / "a.eps").rename(folder / "pictures" / "red" / "3.png")

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D050"):
        load_dataset(spec(folder))


def test_size_is_read_from_the_header(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that would be large when decoded is refused before, and the limit can be raised."""
    Image.new("1", (8200, 8200)).save(folder / "pictures" / "red" / "3.png")

    with pytest.raises(UserError, match="MIMETIC_MAX_PICTURE_PIXELS") as refused:
        load_dataset(spec(folder, image_size=6))
    (folder / "pictures" / "red" / "3.png").unlink()
    monkeypatch.setenv("MIMETIC_MAX_PICTURE_PIXELS", "35")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D054"):
        load_dataset(spec(folder))
    monkeypatch.setenv("MIMETIC_MAX_PICTURE_PIXELS", "36")
    load_dataset(spec(folder))

    assert refused.value.code == "MIM-D054"


@pytest.mark.data
def test_real_photos() -> None:
    """A thousand photos of a thousand classes load at a small size."""
    base = Path(os.environ["MIMETIC_DATA"])
    if not (base / "imagenet-sample").is_dir():
        pytest.skip("imagenet-sample is not in $MIMETIC_DATA")

    data = load_dataset(ImageFolder(path="imagenet-sample", image_size=32, test_size=100))

    assert (len(data.train), len(data.test), data.num_classes) == (800, 100, 1000)
    # Photos of ImageNet average near (0.485, 0.456, 0.406).
    assert data.mean == pytest.approx((0.485, 0.456, 0.406), abs=0.03)
