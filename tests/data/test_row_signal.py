"""The row signal: one row of ones or minus ones, the sign the class, noise of the height asked for."""

import pytest
import torch

from mimetic.data.config import RowSignal
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.data.synthetic import to_bytes


def test_one_row_carries_the_class() -> None:
    """Without noise each image is zero but for one row, up for class 1 and down for class 0."""
    found = load_dataset(RowSignal(shape=(6, 10), count=64, noise=0.0))
    pixels, labels = found.train.inputs[:, 0].int(), found.train.labels
    rows = (pixels != 128).any(dim=2)

    assert rows.sum(dim=1).tolist() == [1] * 64
    assert (pixels[rows] == torch.where(labels == 1, 160, 96)[:, None]).all()
    assert len(set(rows.int().argmax(dim=1).tolist())) == 6
    assert (len(found.train), len(found.test)) == (64, 16)


def test_noise_has_the_height_asked_for() -> None:
    """Its deviation is `noise` heights of the signal; training and test images differ."""
    spec = RowSignal(count=256, noise=2.0)
    found = load_dataset(spec)
    values = (found.train.inputs.double() - 128.0) / 127.0 * 8.0

    assert describe_dataset(spec) == found.shape
    assert float(values.std()) == pytest.approx(2.0, rel=0.04)
    assert not torch.equal(found.train.inputs[:64], found.test.inputs)


def test_bytes() -> None:
    """Zero is 128, four heights fill a byte, and what lies beyond is cut off."""
    assert to_bytes(torch.tensor([0.0, 4.0, -4.0, 9.0, -9.0, 1.0]), unit=1.0).tolist() == [
        128, 255, 1, 255, 0, 160,
    ]  # fmt: skip
