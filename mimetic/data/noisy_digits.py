"""Digits at random places in frames of noise, after the noisy MNIST of arXiv 2309.00570, without a download.

There a digit of 28×28 pixels lies in a frame of 42×42 whose pixels are N(0, σ/4); here scikit-learn's digits
of 8×8 lie in frames of 12×12, the same proportion.
"""

import torch

from mimetic.data.config import Digits, NoisyDigits
from mimetic.data.dataset import DataShape
from mimetic.data.digits import digits
from mimetic.data.load import native_shape, source
from mimetic.data.pool import Pool, Source, in_memory
from mimetic.data.row_signal import as_bytes
from mimetic.streams import generator

_CLASSES, _BLACK_TO_WHITE = 10, 255.0


@source.register
def noisy_digits(spec: NoisyDigits) -> Source:
    """Return the digits in the division of `digits`, each in a frame drawn once."""
    plain = digits(Digits())
    return Source(_framed(spec, "train", plain.train), _framed(spec, "test", plain.test), _CLASSES)


@native_shape.register
def shape(spec: NoisyDigits) -> DataShape:
    """Return the shape of the frames."""
    return DataShape(1, spec.frame, spec.frame, _CLASSES)


def _framed(spec: NoisyDigits, split: str, plain: Pool) -> Pool:
    pixels_NCHW = plain.read(torch.arange(len(plain)))
    count, _, side, _ = pixels_NCHW.shape
    draws = generator("noisy_digits", split, spec.frame)
    values_NHW = spec.noise * torch.randn(count, spec.frame, spec.frame, generator=draws)
    corner_N2 = torch.randint(spec.frame - side + 1, (count, 2), generator=draws)
    along_S = torch.arange(side)
    rows_NS1 = (corner_N2[:, :1] + along_S)[:, :, None]
    columns_N1S = (corner_N2[:, 1:] + along_S)[:, None, :]
    values_NHW[torch.arange(count)[:, None, None], rows_NS1, columns_N1S] = (
        pixels_NCHW[:, 0] / _BLACK_TO_WHITE
    )
    # Noise is cut off at four deviations, strokes end at one: the larger of the two fills the bytes.
    return in_memory(as_bytes(values_NHW, height=max(spec.noise, 0.25))[:, None], plain.labels_N)
