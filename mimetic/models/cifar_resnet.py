"""ResNet for 32-pixel images: a 3×3 stem and three stages of basic blocks, 6n+2 layers in all.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385, §4.2, with the option-B shortcut
(1×1 convolution of stride 2 and batch normalization), as in most published checkpoints and in the studies
of frozen filters (arXiv 2301.11360). Parameter names are those of these checkpoints.
"""

from torch import Tensor, nn
from torch.nn import functional


class CifarResNet(nn.Module):
    """Classify images (N, C, H, W) by a ResNet of `depth` = 6n+2 layers; returns logits (N, classes).

    The stages hold `width`, 2·`width` and 4·`width` channels. Depth 20 and width 16 have 272,474
    parameters for three channels and ten classes. H and W may be any size.
    """

    def __init__(self, *, in_channels: int, num_classes: int, depth: int, width: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks=blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks=blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks=blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; the first may halve the resolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
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


def _stage(in_channels: int, out_channels: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
