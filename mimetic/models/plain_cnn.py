"""A plain CNN: strided convolutions, ReLU, standardization, one linear classifier.

The networks of "A rainbow in deep network black boxes" (Guth, Ménard, Rochette, Mallat, arXiv 2305.18512):
without biases, and with batch normalization that has neither scale nor shift, behind the nonlinearity. Their
learned scattering networks have fixed wavelets in place of the free filters here.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


class PlainCnn(nn.Module):
    """Classify images (N, C, H, W); returns logits (N, classes).

    The layers are `blocks.<i>.conv`, `blocks.<i>.norm` and `head`.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        widths: Channels of each convolution.
        kernel_size: Side of the filters.
        stride: Stride of each convolution.
        norm: `after` or `before` the ReLU, or `none`.
        pool: Average over the pixels before the classifier; else it is applied to every pixel with weights of
            its own, and images must be 32 pixels large.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int],
        kernel_size: int,
        stride: int,
        norm: str,
        pool: bool,
    ) -> None:
        super().__init__()
        inputs = (in_channels, *widths[:-1])
        self.blocks = nn.Sequential(
            *(_block(i, o, kernel_size, stride, norm) for i, o in zip(inputs, widths, strict=True))
        )
        self.pool = pool
        self.head = nn.Linear(
            widths[-1] * (1 if pool else _pixels(len(widths), kernel_size, stride)), num_classes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.blocks(x)
        return self.head(x.mean((2, 3)) if self.pool else x.flatten(1))  # type: ignore[no-any-return]


def _block(inputs: int, outputs: int, kernel_size: int, stride: int, norm: str) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
    standardize = nn.BatchNorm2d(outputs, affine=False)
    order: dict[str, list[tuple[str, nn.Module]]] = {
        "after": [("conv", conv), ("act", nn.ReLU()), ("norm", standardize)],
        "before": [("conv", conv), ("norm", standardize), ("act", nn.ReLU())],
        "none": [("conv", conv), ("act", nn.ReLU())],
    }
    return nn.Sequential(OrderedDict(order[norm]))


def _pixels(depth: int, kernel_size: int, stride: int) -> int:
    """Return the pixels that are left of an image of 32 pixels a side."""
    side = 32
    for _ in range(depth):
        side = (side + 2 * (kernel_size // 2) - kernel_size) // stride + 1
    return side * side
