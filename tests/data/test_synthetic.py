"""Procedural gratings."""

import torch

from mimetic.data.config import Synthetic
from mimetic.data.load import load_dataset


def test_same_section_same_images() -> None:
    """Images depend on the section alone, not on torch's global stream or the split seed."""
    expected = load_dataset(Synthetic(count=30)).digest
    torch.manual_seed(1)

    actual = load_dataset(Synthetic(count=30, split_seed=4)).digest

    assert expected == actual


def test_counts_and_balance() -> None:
    """A quarter as many are tested on, and classes are balanced."""
    data = load_dataset(Synthetic(shape=(2, 9), count=40, classes=4))

    assert (len(data.train), len(data.test)) == (40, 10)
    assert tuple(data.train.pixels_NCHW.shape[1:]) == (2, 9, 9)
    assert torch.bincount(data.train.labels_N).tolist() == [10] * 4


def test_classes_can_be_told_apart() -> None:
    """The strongest frequency of an image tells its class where there is little noise."""
    data = load_dataset(Synthetic(shape=(1, 32), count=200, classes=4, noise=0.05))
    spectra = torch.fft.rfft2(data.train.pixels_NCHW[:, 0].float() - 127).abs()
    features_NF = spectra[:, :, :6].flatten(1)
    centers_KF = torch.stack([features_NF[data.train.labels_N == label].mean(0) for label in range(4)])
    test_NF = torch.fft.rfft2(data.test.pixels_NCHW[:, 0].float() - 127).abs()[:, :, :6].flatten(1)

    guessed_N = torch.cdist(test_NF, centers_KF).argmin(1)

    assert (guessed_N == data.test.labels_N).float().mean() > 0.95
