"""Pictures of two classes that a network tells apart in a few steps, for tests and their processes."""

import torch

from mimetic import streams
from mimetic.data.dataset import Images


def images(count: int, seed: int) -> Images:
    """Return dark pictures with a bright upper half, or a bright lower half."""
    draws = streams.generator(seed)
    labels_N = torch.arange(count) % 2
    pixels_NCHW = torch.randint(0, 120, (count, 3, 8, 8), dtype=torch.uint8, generator=draws)
    for number, label in enumerate(labels_N.tolist()):
        pixels_NCHW[number, :, 4 * label : 4 * label + 4] += 100
    return Images(pixels_NCHW=pixels_NCHW, labels_N=labels_N)
