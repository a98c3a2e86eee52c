"""scikit-learn's handwritten digits: 1,797 real grey images of 8×8 that come with scikit-learn.

Test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998). The file is read
without importing scikit-learn, which would take a second.
"""

import csv
import gzip
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from mimetic.data.config import Digits
from mimetic.data.dataset import DataShape
from mimetic.data.load import native_shape, source
from mimetic.data.pool import Source, in_memory
from mimetic.errors import UserError
from mimetic.streams import generator

_COUNT, _TEST, _SIDE, _LEVELS = 1797, 360, 8, 16


@source.register
def digits(_spec: Digits) -> Source:
    """Return 1,437 images to train on and 360 to test on; the division is the same for every recipe.

    The 17 grey levels 0, …, 16 become round(255·level/16).
    """
    pixels_NCHW, labels_N = _read(_file())
    order_N = torch.randperm(_COUNT, generator=generator("digits", "test"))
    test_M, train_M = order_N[:_TEST].sort().values, order_N[_TEST:].sort().values
    return Source(
        train=in_memory(pixels_NCHW[train_M], labels_N[train_M]),
        test=in_memory(pixels_NCHW[test_M], labels_N[test_M]),
        num_classes=10,
    )


@native_shape.register
def shape(_spec: Digits) -> DataShape:
    """Return 1×8×8, ten classes."""
    return DataShape(1, _SIDE, _SIDE, 10)


def _file() -> Path:
    package = sys.modules.get("sklearn")
    found = find_spec("sklearn") if package is None else package.__spec__
    if found is None or found.origin is None:
        raise UserError("`digits` come with scikit-learn, which is not installed: `pip install scikit-learn`")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _read(file: Path) -> tuple[Tensor, Tensor]:
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            table = torch.tensor([[int(float(value)) for value in row] for row in csv.reader(lines)])
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); reinstall scikit-learn") from error
    if table.shape != (_COUNT, _SIDE * _SIDE + 1):
        raise UserError(f"{file} holds a table of {tuple(table.shape)}; reinstall scikit-learn")
    levels_NP, labels_N = table[:, :-1], table[:, -1]
    pixels_NP = (levels_NP * 255.0 / _LEVELS).round().to(torch.uint8)
    return pixels_NP.view(_COUNT, 1, _SIDE, _SIDE), labels_N.contiguous()
