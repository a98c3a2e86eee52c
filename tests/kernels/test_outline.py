"""What a plan says of learners; every registered one is carried out and described."""

import pytest

from mimetic.config.registry import registered
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.kernels.config import Cntk, ConvRfm, DeepConvRfm, Learner, Rfm
from mimetic.kernels.learn import layers, prospect, rounds
from mimetic.kernels.outline import outline

CIFAR = ImageShape(3, 32, 32, 10)


@pytest.mark.parametrize("name", list(registered("learner")))
def test_every_learner_is_carried_out_and_described(name: str) -> None:
    """A type nobody registered functions for fails here."""
    section = registered("learner")[name]

    assert rounds.dispatch(section) is not rounds.dispatch(Learner)
    assert outline.dispatch(section) is not outline.dispatch(Learner)


def test_outlines() -> None:
    """Sizes, rounds, images, ridges: what will happen, in the order it happens."""
    features = "4 rounds, patches then multiplied by the AGOP at 20 images, its square root"
    assert outline(ConvRfm(images=500, threshold=0.75), CIFAR) == (
        "CNTK of 3 convolutions over patches of 3×3×3, positions 30×30 → 28×28 → 26×26",
        f"{features}, its lowest 75% of eigenvalues zero",
        "learns from 500 training images drawn by the seed, read as pixels",
        "ridge chosen on validation images among 1e-08, 1e-05, 0.001",
    )
    assert outline(DeepConvRfm(depth=2, width=8, ridge=(1e-3,)), CIFAR) == (
        "level 0: CNTK of 2 convolutions over patches of 3×3×3, positions 30×30 → 28×28",
        "level 1: CNTK of 1 convolution over patches of 8×3×3, positions 28×28",
        features,
        "between levels a random convolution of 8 filters with the learned covariance",
        "learns from all training images, read as pixels",
        "ridge 0.001",
    )
    assert outline(Rfm(diagonal=True), CIFAR)[:2] == (
        "Laplace kernel of length 10 over 3072 pixels coordinates",
        "4 rounds, its metric then the diagonal of its AGOP",
    )


def test_images_too_small_are_told() -> None:
    """Before anything is loaded."""
    with pytest.raises(UserError, match="5×5 are too small for 3 convolutions"):
        outline(Cntk(), ImageShape(1, 5, 5, 10))


def test_layers_of_what_is_learned() -> None:
    """Deep ConvRFM has one for each level, the first over the images' channels; the fixed kernel has none."""
    deep = layers(DeepConvRfm(depth=3, width=8), CIFAR)

    assert [part.geometry.in_channels for part in deep] == [3, 8, 8]
    assert [part.depth for part in deep] == [0.0, 0.5, 1.0]
    assert prospect(ConvRfm(), CIFAR, "here").pending
    with pytest.raises(UserError, match="learns no features"):
        prospect(Cntk(), CIFAR, "here")
