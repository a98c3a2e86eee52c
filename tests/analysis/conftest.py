"""Figures are drawn for real: a layout that fails only when it is drawn must fail here."""

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@pytest.fixture
def drawn() -> "Callable[[Figure], np.ndarray]":
    """Return a function that draws a figure and returns its pixels."""

    def draw(figure: "Figure") -> np.ndarray:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=50)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return draw
