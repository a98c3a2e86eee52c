"""Picture files to uint8 tensors: decoded by Pillow on a few threads, cut square and resized on the way."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mimetic.data.pool import Pool
from mimetic.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
"""What counts as a picture, in lower case."""

_LIMIT = 16 * 2**30
"""Bytes of pixels that may be loaded: sets live in memory."""


def picture_pool(files: Sequence[Path], labels_N: Tensor, *, side: int | None, name: str) -> Pool:
    """Return a pool that decodes the pictures asked for, as RGB.

    Args:
        files: The pictures, in the order of the labels.
        labels_N: Their classes.
        side: Side to which each picture is resized by its shorter side and cut at the centre. Without it
            all must have the same size.
        name: The data set, for messages.
    """
    return Pool(labels_N, lambda chosen: _decode([files[i] for i in chosen.tolist()], side=side, name=name))


def picture_size(file: Path) -> tuple[int, int]:
    """Return height and width of a picture, from its header.

    Raises:
        UserError: If it is none.
    """
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} is not a readable picture ({error}); replace or remove it") from error


def _decode(files: list[Path], *, side: int | None, name: str) -> Tensor:
    """Return the pixels (N, 3, H, W)."""
    height, width = picture_size(files[0]) if side is None else (side, side)
    size = 3 * height * width * len(files)
    if size > _LIMIT:
        raise UserError(
            f"`{name}`: {len(files)} pictures of {height}×{width} need {size / 2**30:.0f} GiB of memory; "
            "set a smaller `image_size` or `train_size`"
        )
    pixels_NHWC = np.empty((len(files), height, width, 3), dtype=np.uint8)

    def fill(index: int) -> None:
        pixels_NHWC[index] = _read(files[index], side=side, size=(height, width), name=name)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for _ in threads.map(fill, range(len(files))):
            pass
    return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).contiguous()


def _read(file: Path, *, side: int | None, size: tuple[int, int], name: str) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if side is not None:
                image.draft("RGB", (side, side))  # lets the JPEG decoder skip detail nobody will see
            colored = image.convert("RGB")
            if side is not None:
                colored = _centered(colored, side)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} is not a readable picture ({error}); replace or remove it") from error
    if (colored.height, colored.width) != size:
        raise UserError(
            f"`{name}`: pictures differ in size, {file} is {colored.height}×{colored.width} and the first "
            f"{size[0]}×{size[1]}; set `image_size`"
        )
    return np.asarray(colored)


def _centered(image: Image.Image, side: int) -> Image.Image:
    """Cut the largest central square and resize it, bilinear with antialiasing."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
