"""Noisy digits: each digit whole, somewhere in its frame, in the division of the digits themselves."""

import pytest
import torch

from mimetic.data.config import Digits, NoisyDigits
from mimetic.data.load import describe_dataset, load_dataset


def test_frames_hold_their_digits() -> None:
    """Without noise the frame is black but for the digit, which keeps its strokes and its order."""
    plain, framed = load_dataset(Digits()), load_dataset(NoisyDigits(noise=0.0))
    ink = (framed.train.inputs.double() - 128.0) / 127.0
    strokes = plain.train.inputs.double() / 255.0

    assert torch.equal(plain.train.labels, framed.train.labels)
    assert torch.allclose(strokes.sum((1, 2, 3)), ink.sum((1, 2, 3)), atol=64 * 0.5 / 127.0)
    assert torch.allclose(strokes.amax((1, 2, 3)), ink.amax((1, 2, 3)), atol=0.5 / 127.0)
    corners = {tuple(image.nonzero().amin(0)[1:].tolist()) for image in ink}
    assert len({row for row, _ in corners}) >= 5


def test_noise_surrounds_them() -> None:
    """Pixels outside of the digit have the deviation asked for; one frame of 8 pixels is all digit."""
    spec = NoisyDigits(noise=1.0, frame=24)
    found = load_dataset(spec)
    corner = (found.train.inputs[:, 0, 0, 0].double() - 128.0) / 127.0 * 4.0

    assert describe_dataset(spec) == found.shape
    assert float(corner.std()) == pytest.approx(1.0, abs=0.1)
    assert load_dataset(NoisyDigits(frame=8)).shape.height == 8
