"""A plain CNN: strided convolutions, ReLU, standardization, one linear classifier.

The networks of "A rainbow in deep network black boxes" (Guth, Ménard, Rochette, Mallat, arXiv 2305.18512):
without biases, and with batch normalization that has neither scale nor shift, behind the nonlinearity. Their
learned scattering networks have fixed wavelets in place of the free filters here.
"""

from collections import OrderedDict

from torch import Tensor, nn

from mimetic.models import config


class PlainCnn(nn.Module):
    """Classify images (N, C, H, W); returns logits (N, classes).

    The layers are `blocks.<i>.conv`, `blocks.<i>.norm` and `head`.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        spec: Its sizes. Without `pool`, every pixel has its own weights in the classifier, and images must be
            32 pixels large.
    """

    def __init__(self, *, in_channels: int, num_classes: int, spec: config.PlainCnn) -> None:
        super().__init__()
        sides = zip((in_channels, *spec.widths[:-1]), spec.widths, strict=True)
        self.blocks = nn.Sequential(*(_block(inputs, outputs, spec) for inputs, outputs in sides))
        self.pool = spec.pool
        self.head = nn.Linear(spec.widths[-1] * (1 if spec.pool else _pixels(spec)), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.blocks(x)
        return self.head(x.mean((2, 3)) if self.pool else x.flatten(1))  # type: ignore[no-any-return]


def _block(inputs: int, outputs: int, spec: config.PlainCnn) -> nn.Sequential:
    side = spec.kernel_size
    conv = nn.Conv2d(inputs, outputs, side, spec.stride, padding=side // 2, bias=False)
    standardize = nn.BatchNorm2d(outputs, affine=False)
    order: dict[str, list[tuple[str, nn.Module]]] = {
        "after": [("conv", conv), ("act", nn.ReLU()), ("norm", standardize)],
        "before": [("conv", conv), ("norm", standardize), ("act", nn.ReLU())],
        "none": [("conv", conv), ("act", nn.ReLU())],
    }
    return nn.Sequential(OrderedDict(order[spec.norm]))


def _pixels(spec: config.PlainCnn) -> int:
    """Return the pixels that are left of an image of 32 pixels a side."""
    side = 32
    for _ in spec.widths:
        side = (side + 2 * (spec.kernel_size // 2) - spec.kernel_size) // spec.stride + 1
    return side * side
