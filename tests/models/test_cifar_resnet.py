"""CIFAR-ResNets against published counts and checkpoints."""

import os
from pathlib import Path

import pytest
import torch

from mimetic.data.config import Cifar10
from mimetic.data.load import load_dataset
from mimetic.models.cifar_resnet import CifarResNet, plain_conv


def make(depth: int, width: int = 16) -> CifarResNet:
    """Return a network for CIFAR-10."""
    return CifarResNet(in_channels=3, num_classes=10, depth=depth, width=width, conv=plain_conv(3))


@pytest.mark.parametrize(("depth", "expected"), [(20, 272_474), (56, 855_770)])
def test_parameter_count(depth: int, expected: int) -> None:
    """ResNet-20-16 has the published 272,474 parameters, ResNet-56 those of its checkpoint."""
    actual = sum(parameter.numel() for parameter in make(depth).parameters())

    assert expected == actual


@pytest.mark.parametrize("depth", [8, 14, 20, 32])
def test_depth_counts_layers(depth: int) -> None:
    """A network of 6n+2 layers has that many weights outside shortcuts and norms."""
    names = [name for name, value in make(depth, width=2).named_parameters() if value.ndim > 1]

    actual = len([name for name in names if "downsample" not in name])

    assert depth == actual


def test_images_of_any_size() -> None:
    """8-pixel digits pass as well as 33-pixel images."""
    network = make(8, width=4)

    assert [tuple(network(torch.zeros(2, 3, side, side)).shape) for side in (8, 33)] == [(2, 10)] * 2


@pytest.mark.data
def test_published_checkpoint() -> None:
    """The published ResNet-20 loads strictly and scores its 92.60 % on CIFAR-10's test images."""
    folder = Path(os.environ["MIMETIC_DATA"]) / "weights"
    files = sorted(folder.glob("cifar10_resnet20-*.pt"))
    if not files:
        pytest.skip("needs the published CIFAR-10 ResNet-20 in $MIMETIC_DATA/weights")
    network = make(20).eval()
    network.load_state_dict(torch.load(files[0], weights_only=True), strict=True)
    test = load_dataset(Cifar10(train_size=1, test_size=1000)).test
    mean_C11 = torch.tensor((0.4914, 0.4822, 0.4465))[:, None, None]
    std_C11 = torch.tensor((0.2023, 0.1994, 0.2010))[:, None, None]
    expected = 0.926

    with torch.inference_mode():
        logits_NK = network((test.pixels_NCHW / 255.0 - mean_C11) / std_C11)
    actual = (logits_NK.argmax(1) == test.labels_N).float().mean().item()

    assert actual == pytest.approx(expected, abs=0.02)
