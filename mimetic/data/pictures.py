"""Image files to uint8 tensors: decoded by Pillow on a few threads, cropped square and resized."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base
from torch import Tensor

from mimetic.data.dataset import ImageSource
from mimetic.errors import UserError
from mimetic.files import open_regular
from mimetic.limits import DATA_BYTES, PICTURE_PIXELS

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
"""Suffixes of image files, in lower case."""

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

_DEPTH_16 = frozenset({"PNG", "PPM"})
"""Formats whose `I` images have 16 bits; those of others have 32."""

_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
"""Modes with colours multiplied by the opacity, and those without."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
"""Formats that are decoded, whatever the suffix: PostScript, for one, would be run by Ghostscript."""


def picture_source(files: Sequence[Path], labels_N: Tensor, *, side: int | None, name: str) -> ImageSource:
    """Return a source that decodes image files on demand, as RGB.

    The shorter side is resized to `side` and the centre cropped; without it, all must have the same size.
    """

    def read(chosen_M: Tensor) -> Tensor:
        return _decode([files[i] for i in chosen_M.tolist()], side=side, name=name)

    return ImageSource(labels_N, read)


def picture_size(file: Path) -> tuple[int, int]:
    """Return height and width of an image file as it is shown, from its header.

    Raises:
        UserError: If it is not a readable image.
    """
    with _opened(file) as image:
        turned = image.getexif().get(Base.Orientation, 1) in _TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image file, whose size is checked before a pixel is decoded, and turn failures into errors."""
    try:
        with open_regular(file) as stream, Image.open(stream, formats=_FORMATS) as image:
            pixels = image.width * image.height
            if not PICTURE_PIXELS.is_exceeded_by(pixels):
                yield image
                return
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{file} is not a readable image ({error}); replace or remove it", code="MIM-D050"
        ) from error
    raise UserError(
        f"{file}: a picture of {PICTURE_PIXELS.describe(pixels)}; {PICTURE_PIXELS.repair}, or shrink it",
        code="MIM-D054",
    )


def _decode(files: list[Path], *, side: int | None, name: str) -> Tensor:
    """Return the pixels (N, 3, H, W)."""
    height, width = picture_size(files[0]) if side is None else (side, side)
    size = 3 * height * width * len(files)
    if DATA_BYTES.is_exceeded_by(size):
        raise UserError(
            f"`{name}`: {len(files)} images of {height}×{width} need {DATA_BYTES.describe(size)} of memory; "
            f"set a smaller `image_size` or `train_size`; {DATA_BYTES.repair}",
            code="MIM-D051",
        )
    pixels_NHWC = np.empty((len(files), height, width, 3), dtype=np.uint8)

    def fill(index: int) -> None:
        pixels_NHWC[index] = _read(files[index], side=side, size=(height, width), name=name)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for _ in threads.map(fill, range(len(files))):
            pass
    return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).contiguous()


def _read(file: Path, *, side: int | None, size: tuple[int, int], name: str) -> np.ndarray:
    with _opened(file) as image:
        if side is not None:
            image.draft("RGB", (side, side))  # lets the JPEG decoder skip unused detail
        ImageOps.exif_transpose(image, in_place=True)
        rgb = _rgb(image)
        if side is not None:
            rgb = _center_crop(rgb, side)
    if (rgb.height, rgb.width) != size:
        raise UserError(
            f"`{name}`: images differ in size, {file} is {rgb.height}×{rgb.width} and the first "
            f"{size[0]}×{size[1]}; set `image_size`",
            code="MIM-D053",
        )
    return np.asarray(rgb)


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB; `convert` alone clips deeper pixels to white.

    Raises:
        ValueError: If the range of its values is unknown, or Pillow cannot convert its mode.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _DEPTH_16):
        return _scaled(image, 2**16 - 1)
    if image.mode == "F":
        return _scaled(image, 1.0)
    if image.mode == "I":
        raise ValueError("32-bit integers, whose largest value is unknown; save it with 8 or 16 bits")
    if image.mode in _STRAIGHT:
        image = image.convert(_STRAIGHT[image.mode])
    return image.convert("RGB")


def _scaled(image: Image.Image, most: float) -> Image.Image:
    """Return a grey image of values in [0, most] as RGB."""
    values_HW = np.asarray(image).astype(np.float64)
    if not ((values_HW >= 0.0) & (values_HW <= most)).all():
        raise ValueError(
            f"values from {values_HW.min():g} to {values_HW.max():g} instead of 0 to {most:g}; save it "
            "with 8 bits"
        )
    return Image.fromarray(np.rint(values_HW * (255.0 / most)).astype(np.uint8)).convert("RGB")


def _center_crop(image: Image.Image, side: int) -> Image.Image:
    """Crop the largest central square and resize it, bilinear with antialiasing."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
