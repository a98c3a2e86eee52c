"""ConvMixer: patch embedding, then blocks of a residual depthwise and a pointwise convolution.

Trockman and Kolter, "Patches Are All You Need?", arXiv 2201.09792; code at github locuslab/convmixer. Its
depthwise filters are where structured covariances matter most (arXiv 2210.03651).
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from mimetic.models import config


class ConvMixer(nn.Module):
    """Classify images (N, C, H, W) by a ConvMixer; returns logits (N, classes).

    The layers are `stem.conv`, `stem.norm`, `blocks.<i>.{spatial,norm1,channel,norm2}` and `head`. H and W
    may be any multiple of `patch_size`, or larger: the remainder is cut, as by any strided convolution.
    """

    def __init__(self, *, in_channels: int, num_classes: int, spec: config.ConvMixer) -> None:
        super().__init__()
        dim = spec.dim
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(in_channels, dim, spec.patch_size, stride=spec.patch_size),
                act=nn.GELU(),
                norm=nn.BatchNorm2d(dim),
            )
        )
        self.blocks = nn.Sequential(*(Block(dim, spec.kernel_size) for _ in range(spec.depth)))
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.blocks(self.stem(x))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x ← x + BN(GELU(depthwise(x))), then x ← BN(GELU(pointwise(x)))."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        # An even kernel has no symmetric padding: the longer side comes last, as in padding="same",
        # which itself warns about the copy it makes.
        before = (kernel_size - 1) // 2
        self.extra = kernel_size - 1 - 2 * before
        self.spatial = nn.Conv2d(dim, dim, kernel_size, padding=before, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.channel = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        y = functional.pad(x, (0, self.extra, 0, self.extra)) if self.extra else x
        x = x + self.norm1(functional.gelu(self.spatial(y)))
        return self.norm2(functional.gelu(self.channel(x)))  # type: ignore[no-any-return]
