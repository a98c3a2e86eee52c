"""A network of a few hundred weights."""

from mimetic_example.config import TinyConv
from torch import nn

from mimetic.models.build import Request, build_layerwise


def tiny_conv(spec: TinyConv, request: Request) -> nn.Module:
    """Build the network; each layer draws its initial weights under its own name."""

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(request.in_channels, spec.width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(spec.width, spec.width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(spec.width, request.num_classes),
        )

    return build_layerwise(make, request)
