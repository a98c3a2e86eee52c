"""Networks: our own, those of torchvision and timm by name, and the user's own code."""

from mimetic.models import own, python, zoo  # registers their sections with `construct`
from mimetic.models.argument import parse_model_argument
from mimetic.models.build import Request, as_whole, build, build_meta, by_layer, construct, reinitialize
from mimetic.models.reset import reset_keyed, reset_layers

__all__ = [
    "Request",
    "as_whole",
    "build",
    "build_meta",
    "by_layer",
    "construct",
    "own",
    "parse_model_argument",
    "python",
    "reinitialize",
    "reset_keyed",
    "reset_layers",
    "zoo",
]
