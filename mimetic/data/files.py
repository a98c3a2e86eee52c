"""Where the files of data sets are. No torch."""

import os
from collections.abc import Iterator
from pathlib import Path

from mimetic.data.config import DataSection, ImageData
from mimetic.files import expand_home

ROOT_VARIABLE = "MIMETIC_DATA"
ROOT_HINT = f"set the folder with `root` in the recipe's `data` or with ${ROOT_VARIABLE} (default: ./data)"


def data_root(spec: ImageData) -> Path:
    """Return the folder that contains data sets: the section's `root`, `$MIMETIC_DATA`, or ./data."""
    given = os.environ.get(ROOT_VARIABLE, "data") if spec.root is None else spec.root
    return expand_home(given)


def data_files(spec: DataSection) -> Iterator[Path]:
    """Yield the files of a set whose section names them, in order."""
    for pattern in spec.files or ():
        if isinstance(spec, ImageData):
            yield from sorted(data_root(spec).glob(pattern))
