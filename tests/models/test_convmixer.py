"""ConvMixer against the block written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mimetic.models import config
from mimetic.models.convmixer import Block, ConvMixer


def make(kernel_size: int = 5, patch_size: int = 2) -> ConvMixer:
    """Return a small network."""
    return ConvMixer(
        in_channels=3,
        num_classes=7,
        spec=config.ConvMixer(dim=8, depth=2, kernel_size=kernel_size, patch_size=patch_size),
    )


def test_layer_names() -> None:
    """Recipes match layers by these names."""
    block = ["spatial", "norm1", "channel", "norm2"]
    expected = ["stem.conv", "stem.norm", *(f"blocks.{i}.{name}" for i in (0, 1) for name in block), "head"]

    actual = [name for name, layer in make().named_modules() if list(layer.parameters(recurse=False))]

    assert expected == actual


def test_parameter_count_of_the_published_network() -> None:
    """ConvMixer-768/32 (kernel 7, patch 7) has the 21,110,248 parameters of the paper's code."""
    with torch.device("meta"):
        network = ConvMixer(
            in_channels=3,
            num_classes=1000,
            spec=config.ConvMixer(dim=768, depth=32, kernel_size=7, patch_size=7),
        )
    expected = 21_110_248

    actual = sum(parameter.numel() for parameter in network.parameters())

    assert expected == actual


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 9])
def test_padding_is_same(kernel_size: int) -> None:
    """Odd and even kernels keep the size of the image and pad as padding="same" does."""
    block = Block(4, kernel_size)
    x = torch.randn(2, 4, 6, 5)
    reference = nn.Conv2d(4, 4, kernel_size, padding="valid", groups=4)
    reference.load_state_dict(block.spatial.state_dict())
    left, right = (kernel_size - 1) // 2, kernel_size // 2
    expected = reference(functional.pad(x, (left, right, left, right)))

    actual = block.spatial(functional.pad(x, (0, block.extra, 0, block.extra)))

    torch.testing.assert_close(actual, expected)
    assert block(x).shape == x.shape


def test_block_is_the_published_one() -> None:
    """Residual around depthwise, GELU, norm; then pointwise, GELU, norm, written out in order."""
    block = Block(4, 3)
    sequential = nn.Sequential(
        Residual(nn.Sequential(block.spatial, nn.GELU(), block.norm1)), block.channel, nn.GELU(), block.norm2
    ).eval()
    x = torch.randn(2, 4, 6, 6)

    torch.testing.assert_close(block.eval()(x), sequential(x))


class Residual(nn.Module):
    """x + f(x), as in the authors' code."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return self.inner(x) + x


def test_logits_of_small_images() -> None:
    """Logits have one column per class."""
    expected = (2, 7)

    actual = tuple(make(patch_size=1)(torch.zeros(2, 3, 8, 8)).shape)

    assert expected == actual
