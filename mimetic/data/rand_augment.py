"""RandAugment: a few operations at one strength, drawn for each image (arXiv 1909.13719).

The fourteen operations and their ranges are torchvision's, which draws one operation for a whole batch.
Here the choice is made on the host from the seed of the step, so each operation gets the images that chose
it in one call, and nothing waits for the device.

Shapes: N images, C channels, H rows, W columns; all pixels are uint8.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mimetic.data.augment import Augment, grey
from mimetic.data.config import RandAugment
from mimetic.errors import UserError
from mimetic.streams import key

BINS = 31
"""Strengths go from 0 to 30."""

_LEVELS = 256
_WHITE = 255.0

Operation = Callable[[Tensor, Tensor, float], Tensor]
"""`operation(pixels_NCHW, sign_N, strength)`: strength in [0, 1], signs are -1 or 1."""


def make_rand_augment(spec: RandAugment, _mean: Sequence[float] | None) -> Augment:
    """Return `rand_augment` as configured."""
    return partial(rand_augment, num_ops=spec.num_ops, magnitude=spec.magnitude)


def rand_augment(pixels_NCHW: Tensor, draws: torch.Generator, *, num_ops: int, magnitude: int) -> Tensor:
    """Apply `num_ops` operations to each image, one after another, each drawn uniformly from the fourteen.

    Raises:
        UserError: If the images are not uint8.
    """
    if pixels_NCHW.dtype != torch.uint8:
        raise UserError(
            f"rand_augment needs uint8 images, these are {pixels_NCHW.dtype}; put it first", code="MIM-D061"
        )
    host = torch.Generator().manual_seed(key(draws.initial_seed(), "rand_augment"))
    shape = (num_ops, len(pixels_NCHW))
    chosen_SN = torch.randint(len(OPERATIONS), shape, generator=host)
    sign_SN = 2.0 * torch.randint(2, shape, generator=host) - 1.0
    strength = magnitude / (BINS - 1)
    for chosen_N, sign_N in zip(chosen_SN, sign_SN, strict=True):
        pixels_NCHW = _applied(pixels_NCHW, chosen_N, sign_N, strength)
    return pixels_NCHW


def _applied(pixels_NCHW: Tensor, chosen_N: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    """Apply one operation to each image; choices and signs are on the host.

    The images are put in the order of their operations and back, so each operation has a run of them.
    """
    device = pixels_NCHW.device
    order_N = chosen_N.argsort(stable=True)
    place_N = order_N.argsort()
    counts = torch.bincount(chosen_N, minlength=len(OPERATIONS)).tolist()
    runs = zip(
        OPERATIONS.values(),
        torch.split(pixels_NCHW.index_select(0, order_N.to(device, non_blocking=True)), counts),
        torch.split(sign_N[order_N].to(device, non_blocking=True), counts),
        strict=True,
    )
    found = [operation(run, signs, strength) for operation, run, signs in runs if len(run)]
    return torch.cat(found).index_select(0, place_N.to(device, non_blocking=True))


def _identity(pixels_NCHW: Tensor, _sign_N: Tensor, _strength: float) -> Tensor:
    return pixels_NCHW


def _moved(pixels_NCHW: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Sample each pixel from the nearest position of the image; black outside.

    Columns and rows are (N, H, W), or 1 where they are the same for all.
    """
    count, channels, height, width = pixels_NCHW.shape
    column, row = column.floor().long(), row.floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    source_NHW = source.expand(count, height, width)
    flat_NCP = pixels_NCHW.reshape(count, channels, -1)
    found = flat_NCP.gather(2, source_NHW.reshape(count, 1, -1).expand(flat_NCP.shape)).view(
        pixels_NCHW.shape
    )
    return torch.where(inside[:, None], found, 0)


def _centres(pixels_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns (1, 1, W) and rows (1, H, 1) of the pixels' centres."""
    height, width = pixels_NCHW.shape[2:]
    columns_W, rows_H = (torch.arange(side, device=pixels_NCHW.device) + 0.5 for side in (width, height))
    return columns_W.view(1, 1, -1), rows_H.view(1, -1, 1)


def _shear_x(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    x, y = _centres(pixels_NCHW)
    return _moved(pixels_NCHW, x + 0.3 * strength * sign_N[:, None, None] * y, y)


def _shear_y(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    x, y = _centres(pixels_NCHW)
    return _moved(pixels_NCHW, x, y + 0.3 * strength * sign_N[:, None, None] * x)


def _translate_x(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    x, y = _centres(pixels_NCHW)
    shift = int(150.0 / 331.0 * pixels_NCHW.shape[3] * strength)
    return _moved(pixels_NCHW, x - shift * sign_N[:, None, None], y)


def _translate_y(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    x, y = _centres(pixels_NCHW)
    shift = int(150.0 / 331.0 * pixels_NCHW.shape[2] * strength)
    return _moved(pixels_NCHW, x, y - shift * sign_N[:, None, None])


def _rotate(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    x, y = _centres(pixels_NCHW)
    across, down = x - pixels_NCHW.shape[3] / 2, y - pixels_NCHW.shape[2] / 2
    angle_N11 = math.radians(30.0 * strength) * sign_N[:, None, None]
    cosine, sine = angle_N11.cos(), angle_N11.sin()
    column = across * cosine - down * sine + pixels_NCHW.shape[3] / 2
    return _moved(pixels_NCHW, column, across * sine + down * cosine + pixels_NCHW.shape[2] / 2)


def _blend(pixels_NCHW: Tensor, other: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    """Return other + (1 ± 0.9·strength)·(pixels - other), cut to 0…255."""
    ratio_N111 = 1.0 + 0.9 * strength * sign_N[:, None, None, None]
    return (ratio_N111 * pixels_NCHW.float() + (1.0 - ratio_N111) * other).clamp(0.0, _WHITE).to(torch.uint8)


def _brightness(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    return _blend(pixels_NCHW, pixels_NCHW.new_zeros((), dtype=torch.float32), sign_N, strength)


def _color(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    return _blend(pixels_NCHW, grey(pixels_NCHW.float()).floor(), sign_N, strength)


def _contrast(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    mean_N111 = grey(pixels_NCHW.float()).floor().mean((1, 2, 3), keepdim=True)
    return _blend(pixels_NCHW, mean_N111, sign_N, strength)


def _sharpness(pixels_NCHW: Tensor, sign_N: Tensor, strength: float) -> Tensor:
    height, width = pixels_NCHW.shape[2:]
    if min(height, width) <= 2:  # noqa: PLR2004 - there is no pixel inside
        return pixels_NCHW
    # Sums of integers are exact, and thirteenths are never half a level: no convolution, whose arithmetic
    # depends on the device and which cuDNN would benchmark again for each number of images.
    values = pixels_NCHW.float()
    blurred = values.clone()
    across = values[..., :-2] + values[..., 1:-1] + values[..., 2:]
    around = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    inside = values[..., 1:-1, 1:-1]
    blurred[..., 1:-1, 1:-1] = around.add_(inside, alpha=4.0).div_(13.0).round_()
    return _blend(pixels_NCHW, blurred, sign_N, strength)


def _posterize(pixels_NCHW: Tensor, _sign_N: Tensor, strength: float) -> Tensor:
    bits = 8 - round(4.0 * strength)
    return pixels_NCHW.bitwise_and(_LEVELS - 2 ** (8 - bits))


def _solarize(pixels_NCHW: Tensor, _sign_N: Tensor, strength: float) -> Tensor:
    return torch.where(pixels_NCHW >= _WHITE * (1.0 - strength), 255 - pixels_NCHW, pixels_NCHW)


def _autocontrast(pixels_NCHW: Tensor, _sign_N: Tensor, _strength: float) -> Tensor:
    values = pixels_NCHW.float()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    scale = torch.where(high > low, _WHITE / (high - low), 1.0)
    return ((values - torch.where(high > low, low, 0.0)) * scale).clamp(0.0, _WHITE).to(torch.uint8)


def _equalize(pixels_NCHW: Tensor, _sign_N: Tensor, _strength: float) -> Tensor:
    """Spread each channel's levels so that all are about equally frequent, unless near-constant."""
    index_NCP = pixels_NCHW.flatten(2).long()
    count_NCL = torch.zeros(*index_NCP.shape[:2], _LEVELS, device=index_NCP.device)
    count_NCL.scatter_add_(2, index_NCP, torch.ones_like(index_NCP, dtype=count_NCL.dtype))
    highest_NC1 = index_NCP.amax(2, keepdim=True)
    counted_NC1 = index_NCP.shape[2] - count_NCL.gather(2, highest_NC1)
    step_NC1 = (counted_NC1 / _WHITE).floor()
    below_NCL = count_NCL.cumsum(2) - count_NCL
    levels_NCL = ((below_NCL + (step_NC1 / 2).floor()) / step_NC1.clamp(min=1.0)).floor().clamp(0.0, _WHITE)
    spread_NCP = levels_NCL.gather(2, index_NCP).to(torch.uint8)
    result_NCP = torch.where(step_NC1 > 0, spread_NCP, pixels_NCHW.flatten(2))
    return result_NCP.view(pixels_NCHW.shape)


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
"""torchvision's operations by name."""
