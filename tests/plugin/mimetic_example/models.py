"""A network of a few hundred weights."""

from torch import nn

from mimetic.models.build import Request, build_layerwise
from mimetic_example.config import TinyConv


def tiny_conv(spec: TinyConv, request: Request) -> nn.Module:
    """Build the network; each layer draws its initial weights under its own name."""
    return build_layerwise(_tiny_conv, request, width=spec.width)


def _tiny_conv(*, in_channels: int, num_classes: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )
