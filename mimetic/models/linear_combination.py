"""Linear combination: a bank of k×k filters and a 1×1 convolution that combines their outputs.

Gavrikov and Keuper, "The Power of Linear Combinations: Learning with Random Convolutions",
arXiv 2301.11360. The bank may stay random and frozen: with nothing between the two layers they amount to
one convolution whose filters are learned in the span of the bank.
"""

from torch import Tensor, nn


class LinearCombination(nn.Module):
    """Map images (N, C_in, H, W) as a convolution to C_out channels would.

    Attributes:
        filters: Convolution to C_out·E outputs, without a bias.
        norm: Batch normalization of these; or the identity.
        activation: ReLU of them; or the identity.
        combine: 1×1 convolution to C_out outputs.
    """

    def __init__(
        self, filters: nn.Conv2d, out_channels: int, *, bias: bool, norm: bool = False, relu: bool = False
    ) -> None:
        super().__init__()
        width = filters.out_channels
        self.filters = filters
        self.norm: nn.Module = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.activation: nn.Module = nn.ReLU() if relu else nn.Identity()
        self.combine = nn.Conv2d(width, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H', W')."""
        return self.combine(self.activation(self.norm(self.filters(x))))  # type: ignore[no-any-return]
