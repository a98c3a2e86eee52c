"""The row signal in noise of arXiv 2309.00570: what a learner of patches finds and a fixed kernel does not.

An image is Gaussian noise; one row of it, drawn at random, is replaced by ones or by minus ones. The sign
is the class. A convolution that averages along rows sees it wherever it is.
"""

import torch
from torch import Tensor

from mimetic.data.config import RowSignal
from mimetic.data.dataset import DataShape
from mimetic.data.load import native_shape, source
from mimetic.data.pool import Pool, Source, in_memory
from mimetic.streams import generator

SPAN = 4.0
"""Standard deviations of the noise, or heights of the signal if more, that fit into a byte on either side."""

_CLASSES = 2


@source.register
def row_signal(spec: RowSignal) -> Source:
    """Return `count` images to train on and a quarter as many (at least one) to test on."""
    test_count = max(spec.count // 4, 1)
    return Source(_pool(spec, "train", spec.count), _pool(spec, "test", test_count), _CLASSES)


@native_shape.register
def shape(spec: RowSignal) -> DataShape:
    """Return the shape the section names."""
    rows, columns = spec.shape
    return DataShape(1, rows, columns, _CLASSES)


def _pool(spec: RowSignal, split: str, count: int) -> Pool:
    rows, columns = spec.shape
    draws = generator("row_signal", split, rows, columns)
    labels_N = torch.arange(count) % _CLASSES
    values_NHW = spec.noise * torch.randn(count, rows, columns, generator=draws)
    place_N = torch.randint(rows, (count,), generator=draws)
    values_NHW[torch.arange(count), place_N] = (2.0 * labels_N - 1.0)[:, None].expand(-1, columns)
    return in_memory(as_bytes(values_NHW, height=max(spec.noise, 1.0))[:, None], labels_N)


def as_bytes(values: Tensor, *, height: float) -> Tensor:
    """Return numbers as uint8: 128 is zero, the ends are ±SPAN heights, and what lies beyond is cut off."""
    return (128.0 + 127.0 * values / (SPAN * height)).round().clamp(0, 255).to(torch.uint8)
