"""scikit-learn's handwritten digits, plain or in frames of noise: real images that need no download.

Test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998): 1,797 grey images of
8×8. The file is read directly, because importing `sklearn.datasets` takes a second in every worker.

The noisy digits follow the noisy MNIST of arXiv 2309.00570: there digits of 28×28 pixels are placed in frames
of 42×42 whose pixels are N(0, σ/4); here digits of 8×8 in frames of 12×12, the same proportion.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimetic.data.config import Digits, NoisyDigits
from mimetic.data.dataset import ImageSet, ImageSource
from mimetic.data.synthetic import to_bytes
from mimetic.errors import UserError
from mimetic.streams import generator

_COUNT, _TEST, _SIDE, _CLASSES = 1797, 360, 8, 10
_MAX_LEVEL, _WHITE = 16, 255.0


def digits(_spec: Digits) -> ImageSet:
    """Load 1,437 training and 360 test images; the division is the same for every recipe.

    The 17 grey levels 0, …, 16 become round(255·level/16).
    """
    pixels_NCHW, labels_N = _read()
    order_N = torch.randperm(_COUNT, generator=generator("digits", "test"))
    test_M, train_M = order_N[:_TEST].sort().values, order_N[_TEST:].sort().values
    return ImageSet(
        train=ImageSource.in_memory(pixels_NCHW[train_M], labels_N[train_M]),
        test=ImageSource.in_memory(pixels_NCHW[test_M], labels_N[test_M]),
        num_classes=_CLASSES,
    )


def noisy_digits(spec: NoisyDigits) -> ImageSet:
    """Load the digits, split as by `digits`, each in a noise frame that is drawn once."""
    plain = digits(Digits())
    train, test = _framed(spec, "train", plain.train), _framed(spec, "test", plain.test)
    return ImageSet(train, test, _CLASSES)


def _framed(spec: NoisyDigits, split: str, plain: ImageSource) -> ImageSource:
    pixels_NCHW = plain.read(torch.arange(len(plain)))
    count, _, side, _ = pixels_NCHW.shape
    draws = generator("noisy_digits", split, spec.frame)
    values_NHW = spec.noise * torch.randn(count, spec.frame, spec.frame, generator=draws)
    corner_N2 = torch.randint(spec.frame - side + 1, (count, 2), generator=draws)
    offset_S = torch.arange(side)
    rows_NS1 = (corner_N2[:, :1] + offset_S)[:, :, None]
    columns_N1S = (corner_N2[:, 1:] + offset_S)[:, None, :]
    values_NHW[torch.arange(count)[:, None, None], rows_NS1, columns_N1S] = pixels_NCHW[:, 0] / _WHITE
    # Noise is clipped at four standard deviations and strokes end at one: scale to the larger of the two.
    return ImageSource.in_memory(to_bytes(values_NHW, unit=max(spec.noise, 0.25))[:, None], plain.labels_N)


def _read() -> tuple[Tensor, Tensor]:
    """Return pixels (N, 1, 8, 8), uint8, and labels (N,), int64, from scikit-learn's file."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError(
            "`digits` come with scikit-learn, which is not installed: `pip install scikit-learn`",
            code="MIM-D020",
        )
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",").astype(np.int64))
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); reinstall scikit-learn", code="MIM-D021"
        ) from error
    if table.shape != (_COUNT, _SIDE * _SIDE + 1):
        raise UserError(
            f"{file} contains a table of {tuple(table.shape)}; reinstall scikit-learn", code="MIM-D022"
        )
    levels_NP, labels_N = table[:, :-1], table[:, -1]
    pixels_NP = (levels_NP * _WHITE / _MAX_LEVEL).round().to(torch.uint8)
    return pixels_NP.view(_COUNT, 1, _SIDE, _SIDE), labels_N.contiguous()
