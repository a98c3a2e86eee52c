"""VGG-11: eight 3×3 convolutions with five max-poolings between them.

Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556, configuration A. Layer names are
those of torchvision's `vgg11` and `vgg11_bn`, so the classic head loads their checkpoints.
"""

from torch import Tensor, nn

from mimetic.models import config

_MULTIPLES = (1, "pool", 2, "pool", 4, 4, "pool", 8, 8, "pool", 8, 8, "pool")
"""Configuration A: channels of each convolution in units of the first one's."""

_CLASSIC_SIDE = 7
"""Side to which the classic head pools, as 224-pixel images have after five poolings."""


class Vgg11(nn.Module):
    """Classify images (N, C, H, W) by a VGG-11; returns logits (N, classes).

    Poolings round up (`ceil_mode`): where a side is even that is the original's pooling, and a side of one
    pixel stays one, so images of any size pass, the 8-pixel digits included.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        spec: Its sizes. The last convolution has eight times the channels of the first; the original has 64.
            The `classic` head is the original's three linear layers on a 7×7 map with dropout ½, whose hidden
            layers have 64·`width` units.
    """

    def __init__(self, *, in_channels: int, num_classes: int, spec: config.Vgg11) -> None:
        super().__init__()
        width, classic = spec.width, spec.head == "classic"
        self.features = _features(in_channels, width, batch_norm=spec.batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(_CLASSIC_SIDE if classic else 1)
        self.classifier = _classic_head(width, num_classes) if classic else nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.avgpool(self.features(x))
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def _features(in_channels: int, width: int, *, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for multiple in _MULTIPLES:
        if isinstance(multiple, str):
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        out_channels = multiple * width
        layers.append(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU())
        in_channels = out_channels
    return nn.Sequential(*layers)


def _classic_head(width: int, num_classes: int) -> nn.Sequential:
    hidden = 64 * width
    return nn.Sequential(
        nn.Linear(8 * width * _CLASSIC_SIDE**2, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, num_classes),
    )
