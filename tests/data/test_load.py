"""What all data sets share: subsets, held-out splits, resizing, the data root."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimetic.data.config import Data, Digits, Synthetic
from mimetic.data.dataset import DataShape
from mimetic.data.load import describe_dataset, load_dataset, root
from mimetic.errors import UserError


def serials(pixels_NCHW: torch.Tensor) -> set[bytes]:
    """Return the images as a set."""
    return {image.numpy().tobytes() for image in pixels_NCHW}


SMALL = Synthetic(shape=(1, 4), count=60, classes=3)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5))
@settings(max_examples=25)
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
    ("asked", "message"),
    [
        ({"train_size": 61}, "60 training images, too few for val_size 0 and train_size 61"),
        ({"train_size": 41, "val_size": 20}, "60 training images, too few for val_size 20 and train_size 41"),
        ({"val_size": 60}, "60 training images, too few for val_size 60"),
        ({"test_size": 16}, "15 test images, too few for test_size 16"),
    ],
)
def test_too_many_asked_for(asked: dict[str, int], message: str) -> None:
    """Sizes beyond the set are told with both numbers."""
    with pytest.raises(UserError, match=message):
        load_dataset(SMALL.model_copy(update=asked))


def test_resizing() -> None:
    """Images are resized in all splits, stay uint8, and a constant image stays constant."""
    data = load_dataset(SMALL.model_copy(update={"image_size": 9, "val_size": 5}))

    for images in (data.train, data.val, data.test):
        assert tuple(images.pixels_NCHW.shape[1:]) == (1, 9, 9)
        assert images.pixels_NCHW.dtype == torch.uint8
    assert abs(data.mean[0] - load_dataset(SMALL).mean[0]) < 0.02


@pytest.mark.parametrize(
    "spec", [Digits(), Digits(image_size=16), SMALL, Synthetic(shape=(2, 5), classes=4, count=8)]
)
def test_describe_foretells_load(spec: Data) -> None:
    """The shape told without loading is the shape that is loaded."""
    expected = load_dataset(spec).shape

    actual = describe_dataset(spec)

    assert expected == actual


def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's root comes before the variable, the variable before ./data."""
    monkeypatch.delenv("MIMETIC_DATA", raising=False)
    assert root(Digits()) == Path("data")

    monkeypatch.setenv("MIMETIC_DATA", str(tmp_path))
    assert root(Digits()) == tmp_path
    assert root(Digits(root="elsewhere")) == Path("elsewhere")
    assert root(Digits(root="~")) == Path.home()


class Unloaded(Data):
    """A section nobody loads."""

    type: str = "unloaded"


def test_unknown_section_is_told() -> None:
    """A type the language knows and nothing loads is a user's mistake."""
    with pytest.raises(UserError, match="nothing here loads it"):
        load_dataset(Unloaded())
    with pytest.raises(UserError, match="nothing here describes it"):
        describe_dataset(Unloaded())


def test_shape_is_that_of_the_images() -> None:
    """A data set tells its shape."""
    expected = DataShape(1, 8, 8, 10)

    assert expected == load_dataset(Digits()).shape
