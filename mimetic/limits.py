"""Limits on how large an input may become, checked before it is loaded or built.

Recipes and files may come from strangers. Each limit is far above ordinary use and can be raised by the
environment variable that its message names, e.g. `MIMETIC_MAX_PARAMETERS=2e11`.
"""

import math
import os
from dataclasses import dataclass

from mimetic.errors import UserError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_COUNTED = 10**12


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and how to raise it.

    Attributes:
        variable: Environment variable that replaces the default.
        default: The limit.
        unit: What is counted; bytes unless given.
    """

    variable: str
    default: float
    unit: str = ""

    @property
    def value(self) -> float:
        """Return the limit in force.

        Raises:
            UserError: If the environment variable is not a positive number.
        """
        text = os.environ.get(self.variable)
        if text is None:
            return self.default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not value > 0.0:
            raise UserError(f"${self.variable} is `{text}`; set it to a positive number", code="MIM-C071")
        return value

    def is_exceeded_by(self, amount: float) -> bool:
        """Return whether an amount is larger than the limit, or not a number."""
        return not amount <= self.value

    def describe(self, amount: float) -> str:
        """Return an amount with its unit, e.g. `3.5 GiB`."""
        if self.unit:
            number = f"{amount:,.0f}" if amount < _COUNTED else f"{amount:.2g}"
            return f"{number} {self.unit}"
        for unit in _UNITS:
            if amount < _STEP:
                return f"{amount:.3g} {unit}"
            amount /= _STEP
        return f"{amount:.2g} EiB"

    @property
    def repair(self) -> str:
        """Return how to raise the limit."""
        return f"the limit is {self.describe(self.value)}; set {self.variable} to raise it"


PARAMETERS = Limit("MIMETIC_MAX_PARAMETERS", 1e10, "parameters")
"""Parameters of a network."""

LAYERS = Limit("MIMETIC_MAX_LAYERS", 5_000, "layers")
"""Modules of a network, containers included."""

DATA_BYTES = Limit("MIMETIC_MAX_DATA_BYTES", 16 * 2**30)
"""Memory of a data set."""

ARGUMENT = Limit("MIMETIC_MAX_ARGUMENT", 1e6, "as a constructor's argument")
"""A number among the `args` of a torchvision or timm model, whose size is known only after building."""

KERNEL_BYTES = Limit("MIMETIC_MAX_KERNEL_BYTES", 64 * 2**30)
"""Memory of the matrices of a kernel machine."""

TRIALS = Limit("MIMETIC_MAX_TRIALS", 10_000, "trials")
"""Arms times seeds of a study."""

EPOCHS = Limit("MIMETIC_MAX_EPOCHS", 1e8, "epochs")
"""Epochs of a trial."""

CHECKPOINT_BYTES = Limit("MIMETIC_MAX_CHECKPOINT_BYTES", 16 * 2**30)
"""A file of weights, expanded."""

COVARIANCE_BYTES = Limit("MIMETIC_MAX_COVARIANCE_BYTES", 8 * 2**30)
"""A covariance file."""

PICTURE_PIXELS = Limit("MIMETIC_MAX_PICTURE_PIXELS", 64e6, "pixels")
"""One picture of a data set."""

TEXT_BYTES = Limit("MIMETIC_MAX_TEXT_BYTES", 256 * 2**20)
"""A journal, or another text file of a study."""
