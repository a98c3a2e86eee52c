"""What all data sets share: subsets, held-out splits, resizing, the data root."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.data.config import Digits, ImageData, Synthetic
from mimetic.data.files import data_root
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError


def serials(pixels_NCHW: torch.Tensor) -> set[bytes]:
    """Return the images as a set."""
    return {image.numpy().tobytes() for image in pixels_NCHW}


SMALL = Synthetic(shape=(1, 4), count=60, classes=3)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5))
def test_splits_never_meet(train_size: int, val_size: int, split_seed: int) -> None:
    """Subsets have the sizes asked for, and training, validation and test images are disjoint."""
    asked = {"train_size": train_size, "val_size": val_size, "test_size": 7, "split_seed": split_seed}

    data = load_dataset(SMALL.model_copy(update=asked))
    train, test = serials(data.train.pixels_NCHW), serials(data.test.pixels_NCHW)
    val = set() if data.val is None else serials(data.val.pixels_NCHW)

    assert (len(train), len(val), len(test)) == (train_size, val_size, 7)
    assert train.isdisjoint(val | test)
    assert val.isdisjoint(test)
    assert (data.val is None) == (val_size == 0)


def test_larger_subset_contains_the_smaller() -> None:
    """Growing `train_size` adds images and keeps those there were, and the same held-out split."""
    small, large = (load_dataset(SMALL.model_copy(update={"train_size": n, "val_size": 9})) for n in (10, 30))

    assert serials(small.train.pixels_NCHW) < serials(large.train.pixels_NCHW)
    assert torch.equal(small.val.pixels_NCHW, large.val.pixels_NCHW)


def test_labels_follow_their_images() -> None:
    """A subset's labels are those the full set gives the same images."""
    whole = load_dataset(SMALL).train
    expected = {
        image.numpy().tobytes(): label
        for image, label in zip(whole.pixels_NCHW, whole.labels_N.tolist(), strict=True)
    }

    part = load_dataset(SMALL.model_copy(update={"train_size": 20})).train

    assert part.labels_N.tolist() == [expected[image.numpy().tobytes()] for image in part.pixels_NCHW]


def test_split_seed_chooses() -> None:
    """Another seed chooses other images, the same seed the same."""
    first, again, other = (
        load_dataset(SMALL.model_copy(update={"train_size": 10, "split_seed": seed})).digest
        for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ({"train_size": 61}, "MIM-D002"),
        ({"train_size": 41, "val_size": 20}, "MIM-D002"),
        ({"val_size": 60}, "MIM-D002"),
        ({"test_size": 16}, "MIM-D003"),
    ],
)
def test_sizes_beyond_the_set(sizes: dict[str, int], code: str) -> None:
    """Requesting more images than the set has is an error."""
    with pytest.raises(UserError, check=lambda error: error.code == code):
        load_dataset(SMALL.model_copy(update=sizes))


def test_resizing() -> None:
    """Images are resized in all splits, stay uint8, and a constant image stays constant."""
    data = load_dataset(SMALL.model_copy(update={"image_size": 9, "val_size": 5}))

    for images in (data.train, data.val, data.test):
        assert tuple(images.pixels_NCHW.shape[1:]) == (1, 9, 9)
        assert images.pixels_NCHW.dtype == torch.uint8
    assert abs(data.mean[0] - load_dataset(SMALL).mean[0]) < 0.02


def test_grey_images_over_three_channels() -> None:
    """Every channel has the grey values, and their mean and standard deviation."""
    grey = load_dataset(SMALL)
    data = load_dataset(SMALL.model_copy(update={"channels": 3}))

    for images, expected in ((data.train, grey.train), (data.test, grey.test)):
        assert images.pixels_NCHW.is_contiguous()
        for channel_NHW in images.pixels_NCHW.unbind(1):
            assert torch.equal(channel_NHW, expected.pixels_NCHW[:, 0])
    assert data.mean == grey.mean * 3
    assert data.std == grey.std * 3


def test_colour_images_are_not_repeated() -> None:
    """Images of three channels stay as they are; those of two cannot have three."""
    colour = Synthetic(shape=(3, 5), classes=4, count=8)
    assert load_dataset(colour.model_copy(update={"channels": 3})).digest == load_dataset(colour).digest

    odd = Synthetic(shape=(2, 5), classes=4, count=8, channels=3)
    for read in (load_dataset, describe_dataset):
        with pytest.raises(UserError, check=lambda error: error.code == "MIM-D052"):
            read(odd)


@pytest.mark.parametrize(
    "spec",
    [Digits(), Digits(image_size=16), Digits(channels=3), SMALL, Synthetic(shape=(2, 5), classes=4, count=8)],
)
def test_describe_foretells_load(spec: ImageData) -> None:
    """The shape told without loading is the shape that is loaded."""
    expected = load_dataset(spec).shape

    actual = describe_dataset(spec)

    assert expected == actual


def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's root comes before the variable, the variable before ./data."""
    monkeypatch.delenv("MIMETIC_DATA", raising=False)
    assert data_root(Digits()) == Path("data")

    monkeypatch.setenv("MIMETIC_DATA", str(tmp_path))
    assert data_root(Digits()) == tmp_path
    assert data_root(Digits(root="elsewhere")) == Path("elsewhere")
    assert data_root(Digits(root="~")) == Path.home()


def test_shape_is_that_of_the_images() -> None:
    """A data set tells its shape."""
    expected = ImageShape(1, 8, 8, 10)

    assert expected == load_dataset(Digits()).shape
