"""The plain CNN: layers, order of ReLU and norm, widths and heads."""

import pytest
import torch
from torch import nn

from mimetic.models.build import build
from mimetic.models.config import PlainCnn


def made(**options: object) -> nn.Module:
    """Return a network for three colours and ten classes."""
    section = PlainCnn.model_validate({"widths": [4, 6], **options})
    return build(section, in_channels=3, num_classes=10, seed=0)


@pytest.mark.parametrize(
    ("norm", "names"),
    [
        ("after", ["conv", "act", "norm"]),
        ("before", ["conv", "norm", "act"]),
        ("none", ["conv", "act"]),
    ],
)
def test_blocks(norm: str, names: list[str]) -> None:
    """Neither biases nor scales and shifts; the head alone has a bias."""
    model = made(norm=norm)

    assert [name for name, _ in model.blocks[1].named_children()] == names
    assert [name for name, _ in model.named_parameters()] == [
        "blocks.0.conv.weight",
        "blocks.1.conv.weight",
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 2), (3, 1), (2, 2)])
def test_a_head_for_every_pixel_fits_images_of_32(kernel_size: int, stride: int) -> None:
    """The number of pixels behind the convolutions is counted right; pooled heads take any size."""
    options = {"kernel_size": kernel_size, "stride": stride}

    assert made(**options, pool=False)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert made(**options)(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
