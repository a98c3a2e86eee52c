"""ResNet for 32-pixel images: a 3×3 stem and three stages of basic blocks, 6n+2 layers in all.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385, §4.2, with the option-B shortcut
(1×1 convolution of stride 2 and batch normalization), as in most published checkpoints and in the studies
of frozen filters (arXiv 2301.11360). Parameter names are those of these checkpoints.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from mimetic.models.linear_combination import LinearCombination

Conv = Callable[[int, int, int], nn.Module]
"""`conv(in_channels, out_channels, stride)`: a k×k convolution that keeps the size but for its stride."""


class CifarResNet(nn.Module):
    """Classify images (N, C, H, W) by a ResNet of `depth` = 6n+2 layers; returns logits (N, classes).

    The stages have `width`, 2·`width` and 4·`width` channels. Depth 20 and width 16 have 272,474
    parameters for three channels and ten classes. H and W may be any size.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        depth: Number of layers, 6n+2.
        width: Channels of the first stage.
        conv: Makes the spatial convolutions: `plain_conv(3)`, or a linear combination of filters.
    """

    def __init__(self, *, in_channels: int, num_classes: int, depth: int, width: int, conv: Conv) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, conv, blocks=blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, conv, blocks=blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, conv, blocks=blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two spatial convolutions around a shortcut; the first may halve the resolution."""

    def __init__(self, in_channels: int, out_channels: int, conv: Conv, *, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return features, of half the resolution where the stride is 2."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


def plain_conv(kernel_size: int) -> Callable[[int, int, int], nn.Conv2d]:
    """Return what makes ordinary convolutions of an odd side."""

    def make(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
        padding = kernel_size // 2
        return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)

    return make


def combined_conv(kernel_size: int, expansion: int) -> Conv:
    """Return what makes linear combinations of `expansion` filters per output channel (ResNet-LC)."""
    filters = plain_conv(kernel_size)

    def make(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        bank = filters(in_channels, out_channels * expansion, stride)
        return LinearCombination(bank, out_channels, bias=False)

    return make


def _stage(in_channels: int, out_channels: int, conv: Conv, *, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, conv, stride=stride)
    others = (BasicBlock(out_channels, out_channels, conv, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)
