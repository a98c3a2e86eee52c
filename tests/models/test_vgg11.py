"""VGG-11 against torchvision's."""

import pytest
import torch

from mimetic.models import config
from mimetic.models.published import import_library
from mimetic.models.vgg11 import Vgg11


@pytest.mark.parametrize(("batch_norm", "name"), [(False, "vgg11"), (True, "vgg11_bn")])
def test_classic_head_is_torchvisions(batch_norm: bool, name: str) -> None:
    """The classic network has torchvision's parameters, by name and shape."""
    with torch.device("meta"):
        theirs = import_library("torchvision").models.get_model(name, weights=None)
        ours = Vgg11(
            in_channels=3,
            num_classes=1000,
            spec=config.Vgg11(width=64, batch_norm=batch_norm, head="classic"),
        )
    expected = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}

    actual = {name: tuple(value.shape) for name, value in ours.state_dict().items()}

    assert expected == actual


@pytest.mark.parametrize("side", [32, 64])
def test_features_are_torchvisions(side: int) -> None:
    """Where sides are even, the convolutions and poolings compute what torchvision's do."""
    with torch.device("meta"):
        theirs = import_library("torchvision").models.vgg11_bn(weights=None).features.eval()
    ours = Vgg11(
        in_channels=3, num_classes=10, spec=config.Vgg11(width=64, batch_norm=True, head="pooled")
    ).features.eval()
    theirs.to_empty(device="cpu").load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, side, side)

    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("head", ["pooled", "classic"])
@pytest.mark.parametrize("side", [1, 8, 28, 32])
def test_small_images_pass(head: str, side: int) -> None:
    """Poolings never shrink an image below one pixel."""
    network = Vgg11(in_channels=1, num_classes=10, spec=config.Vgg11(width=2, batch_norm=False, head=head))
    expected = (2, 10)

    actual = tuple(network(torch.zeros(2, 1, side, side)).shape)

    assert expected == actual
