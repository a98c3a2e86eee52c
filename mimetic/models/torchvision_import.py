"""The one door to torchvision and timm: it also opens where torchvision's own operators are missing.

torchvision's wheels from PyPI are CUDA builds. Beside a CPU-only torch their C++ library does not load, and
the import fails with "operator torchvision::nms does not exist" (pytorch#157648, vision#9085), although the
models and data sets need none of those operators. Declaring the two missing schemas and importing again
gives everything but `torchvision.ops.nms` and its kin.
"""

from importlib import import_module
from types import ModuleType

import torch

from mimetic.errors import UserError

_MISSING = "torchvision::nms"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []
"""Keeps the declared schemas alive: torch drops them with their library object."""


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    Raises:
        UserError: If torchvision is not installed or does not load for another reason.
    """
    try:
        return _imported("torchvision")
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise UserError(_unloadable("torchvision", error)) from error
    _declare_operators()
    try:
        return _imported("torchvision")
    except RuntimeError as error:
        raise UserError(_unloadable("torchvision", error)) from error


def import_timm() -> ModuleType:
    """Import timm, which imports torchvision, through the same door.

    Raises:
        UserError: If timm or torchvision is not installed or does not load.
    """
    import_torchvision()
    return _imported("timm")


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(_unloadable(name, error)) from error


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _unloadable(name: str, error: Exception) -> str:
    return (
        f"{name} cannot be imported ({error}); install the release made for torch {torch.__version__}: "
        f"`pip install torch {name}` in one command chooses a pair"
    )
