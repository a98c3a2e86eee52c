"""Statistics and digests."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.data.dataset import Images, digest, statistics


def images(count: int = 5, channels: int = 3, seed: int = 0) -> Images:
    """Return random images."""
    draws = torch.Generator().manual_seed(seed)
    pixels_NCHW = torch.randint(256, (count, channels, 4, 4), generator=draws).to(torch.uint8)
    return Images(pixels_NCHW, torch.arange(count))


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_statistics_are_torchs(count: int, channels: int, seed: int) -> None:
    """Mean and standard deviation are those of all pixels of a channel, in units of [0, 1]."""
    some = images(count, channels, seed)
    values_CM = some.pixels_NCHW.double().transpose(0, 1).flatten(1) / 255

    mean, std = statistics(some)

    assert mean == pytest.approx(values_CM.mean(1).tolist())
    assert std == pytest.approx(values_CM.std(1, correction=0).tolist())


def test_constant_channel_can_be_divided_by() -> None:
    """A channel that never varies has a standard deviation of 1."""
    expected = ((1.0,), (1.0,))

    actual = statistics(Images(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8), torch.zeros(2)))

    assert expected == actual


def test_digest_sees_everything() -> None:
    """One pixel, one label, another division or an empty split change the digest; copies do not."""
    first = images()
    pixel, label = first.pixels_NCHW.clone(), first.labels_N.clone()
    pixel[0, 0, 0, 0] ^= 1
    label[0] += 1
    parts = (
        Images(first.pixels_NCHW[:2], first.labels_N[:2]),
        Images(first.pixels_NCHW[2:], first.labels_N[2:]),
    )
    others = [
        digest(Images(pixel, first.labels_N)),
        digest(Images(first.pixels_NCHW, label)),
        digest(*parts),
        digest(first, None),
    ]
    expected = digest(first)

    assert expected == digest(images())
    assert len({expected, *others}) == 5
