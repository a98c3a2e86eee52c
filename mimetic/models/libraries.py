"""Import torchvision or timm where they are needed, with an error that names the repair."""

from importlib import import_module
from typing import Any

import torch

from mimetic.errors import UserError


def import_library(name: str) -> Any:
    """Import torchvision or timm.

    Raises:
        UserError: If it is not installed, or was built for another release of torch.
    """
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot be imported ({error}); install the release made for torch {torch.__version__}: "
            f"`pip install torch {name}` in one command chooses a pair",
            code="MIM-M001",
        ) from error
