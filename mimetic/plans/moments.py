"""Mean and deviation of what was written, in one pass over memory."""

import math

import torch
from torch import Tensor

_PIECE = 1 << 17
"""Entries converted to float64 at once: few enough for a core's cache, so many that threads seldom meet."""


def moments(values: Tensor, about: float = 0.0) -> tuple[float, float]:
    """Return mean and rms deviation from it, in float64.

    Sums are taken of x - `about`, so that a deviation far below the mean is not lost to rounding.

    Args:
        values: On any device, in any dtype and memory format.
        about: A value near the mean, e.g. the mean that is expected.
    """
    count = values.numel()
    if count == 0:
        return 0.0, 0.0
    total = square = 0.0
    flat = values.reshape(-1)
    size = min(count, _PIECE) if values.device.type == "cpu" else count
    room = torch.empty(
        size, dtype=torch.float64, device=values.device
    )  # once: fresh memory costs more than sums
    for piece in torch.split(flat, size):
        shifted = room[: len(piece)].copy_(piece)
        if about != 0.0:
            shifted.sub_(about)
        total += shifted.sum().item()
        square += torch.dot(shifted, shifted).item()
    mean = total / count
    variance = square / count - mean * mean
    return about + mean, math.sqrt(variance) if variance > 0.0 else variance * 0.0
