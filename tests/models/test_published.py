"""Models of torchvision and timm by name."""

import math

import pytest
import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import Model, Timm, Torchvision

TORCHVISION = ["resnet18", "vgg11", "vit_b_16", "convnext_tiny", "swin_t", "googlenet", "densenet121"]
TIMM = [
    "convmixer_768_32",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "mixer_s16_224",
    "efficientnet_b0",
]
TAGGED = Timm(name="test_convnext.r160_in1k")
"""A network by the name of weights that are published for it; it is initialized all the same."""

SPECS = [TAGGED, *(Torchvision(name=name) for name in TORCHVISION), *(Timm(name=name) for name in TIMM)]


@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.type}:{spec.name}")
def test_meta_models(spec: Torchvision | Timm, channels: int) -> None:
    """Every family is built on the meta device, for color and for grey images, and classifies there."""
    model = build(spec, in_channels=channels, num_classes=10, meta=True).eval()
    expected = (2, 10)

    actual = tuple(model(torch.empty(2, channels, 224, 224, device="meta")).shape)

    assert expected == actual


def test_grey_stem_keeps_its_law() -> None:
    """SqueezeNet's stem is uniform within √(6/fan-in) at the fan-in of grey images, not of color ones."""
    expected = math.sqrt(6 / (1 * 3 * 3))

    model = build(Torchvision(name="squeezenet1_1"), in_channels=1, num_classes=10, seed=0)
    weight_OIHW = model.features[0].weight
    actual = weight_OIHW.abs().max().item()

    assert tuple(weight_OIHW.shape) == (64, 1, 3, 3)
    assert 0.98 * expected < actual <= expected


def test_color_model_is_torchvisions_own() -> None:
    """Three channels change nothing: the constructor under the same seed gives the same bits."""
    from mimetic.models.published import import_library
    from mimetic.streams import keyed_global_rng

    with keyed_global_rng(0, "model"):
        theirs = import_library("torchvision").models.squeezenet1_1(num_classes=10)

    ours = build(Torchvision(name="squeezenet1_1"), in_channels=3, num_classes=10, seed=0)

    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))


def test_only_the_stem_changes() -> None:
    """The hook is gone afterwards: other convolutions of three channels are left alone."""
    build(Torchvision(name="squeezenet1_1"), in_channels=1, num_classes=10, meta=True)
    expected = 3

    actual = nn.Conv2d(3, 4, 1).in_channels

    assert expected == actual


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (Torchvision(name="resnet81"), "MIM-M006"),
        (Torchvision(name="fasterrcnn_resnet50_fpn"), "MIM-M006"),
        (Torchvision(name="zzz"), "MIM-M006"),
        (Timm(name="convmixer_768"), "MIM-M006"),
        (Timm(name="hf-hub:someone/something"), "MIM-M006"),
        (
            Torchvision(name="resnet18", args={"foo": 1}),
            "MIM-M004",
        ),
        (Timm(name="test_convnext", args={"foo": 1}), "MIM-M004"),
        (Torchvision(name="vit_b_16", args={"image_size": 30}), "MIM-M004"),
    ],
)
def test_mistakes(spec: Model, code: str) -> None:
    """Every mistake says what is wrong and what to do."""
    with pytest.raises(UserError, check=lambda error: error.code == code):
        build(spec, in_channels=3, num_classes=10, seed=0)


def test_untrained_weights_may_be_spelled_out() -> None:
    """`checkpoint_path: null` asks for nothing and is taken."""
    spec = Timm(name="test_convnext", args={"checkpoint_path": None})
    expected = 2

    actual = build(spec, in_channels=3, num_classes=2, meta=True).num_classes

    assert expected == actual
