"""Plans of learners."""

from math import prod

import pytest

from mimetic.config.registry import registered
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.kernels.config import Cntk, ConvRfm, DeepConvRfm, Learner, Rfm
from mimetic.kernels.learn import plan_learner, planned_harvest, run_learner
from mimetic.kernels.problem import Problem

CIFAR = ImageShape(3, 32, 32, 10)
TINY = {"rounds": 1, "depth": 2, "width": 4, "ridge": [1e-3]}


@pytest.mark.parametrize("name", list(registered("learner")))
def test_every_learner_follows_its_plan(name: str, given: Problem) -> None:
    """Every registered learner describes itself, and learns covariances of the planned sizes."""
    fields = registered("learner")[name].model_fields
    spec = registered("learner")[name].model_validate({k: v for k, v in TINY.items() if k in fields})
    assert isinstance(spec, Learner)
    plan = plan_learner(spec, ImageShape(1, 6, 6, 3))
    rounds = list(run_learner(spec, given))

    assert all(plan.description)
    assert len(rounds[-1].covariances) == len(plan.layers)
    for matrix, layer in zip(rounds[-1].covariances, plan.layers, strict=True):
        geometry = layer.geometry
        side = geometry.patch_channels * prod(geometry.kernel_size)
        assert matrix is None or matrix.shape == (side, side)


def test_outlines() -> None:
    """Sizes, rounds, images, ridges: what will happen, in the order it happens."""
    features = "4 rounds, patches then multiplied by the AGOP at 20 images, its square root"
    assert plan_learner(ConvRfm(images=500, threshold=0.75), CIFAR).description == (
        "CNTK of 3 convolutions over patches of 3×3×3, positions 30×30 → 28×28 → 26×26",
        f"{features} without the lowest 75% of eigenvalues",
        "learns from 500 randomly drawn training images, read as pixels",
        "ridge selected on validation images among 1e-08, 1e-05, 0.001",
    )
    assert plan_learner(DeepConvRfm(depth=2, width=8, ridge=(1e-3,)), CIFAR).description == (
        "level 0: CNTK of 2 convolutions over patches of 3×3×3, positions 30×30 → 28×28",
        "level 1: CNTK of 1 convolution over patches of 8×3×3, positions 28×28",
        features,
        "between levels a random convolution of 8 filters with the learned covariance",
        "learns from all training images, read as pixels",
        "ridge 0.001",
    )
    assert plan_learner(Rfm(diagonal=True), CIFAR).description[:2] == (
        "Laplace kernel of length 10 over 3072 pixels coordinates",
        "5 rounds, its metric then the diagonal of its AGOP",
    )


def test_images_too_small_are_told() -> None:
    """Before anything is loaded."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-K030"):
        plan_learner(Cntk(), ImageShape(1, 5, 5, 10))


def test_layers_of_what_is_learned() -> None:
    """Deep ConvRFM has one for each level, the first over the images' channels; the fixed kernel has none."""
    deep = plan_learner(DeepConvRfm(depth=3, width=8), CIFAR).layers

    assert [part.geometry.in_channels for part in deep] == [3, 8, 8]
    assert [part.depth for part in deep] == [0.0, 0.5, 1.0]
    assert planned_harvest(ConvRfm(), CIFAR, "here").digest is None
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-K001"):
        planned_harvest(Cntk(), CIFAR, "here")
