"""How the networks a recipe takes from are called."""

from typing import Any

import pytest

from mimetic.covariance.config import Nfm
from mimetic.study.trials.origins import origin_classes, origin_name


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"stage": "small"}, "stage small"),
        ({"checkpoint": "a.pt"}, "checkpoint a.pt"),
        (
            {"model": {"type": "torchvision", "name": "vgg11"}, "weights": "DEFAULT"},
            "vgg11 with weights DEFAULT",
        ),
    ],
)
def test_origins_are_called_as_people_read_them(origin: dict[str, Any], expected: str) -> None:
    """Plans and messages name the network a covariance comes from."""
    assert origin_name(Nfm.model_validate({"from": origin})) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"type": "convmixer", "dim": 8, "depth": 1}, 10),
        ({"type": "convmixer", "dim": 8, "depth": 1, "num_classes": 7}, 7),
        ({"type": "torchvision", "name": "vgg11"}, 1000),
        ({"type": "timm", "name": "resnet18", "num_classes": 5}, 5),
    ],
)
def test_outputs_of_an_origin_are_those_its_weights_have(model: dict[str, Any], expected: int) -> None:
    """A checkpoint of ours was trained on as many classes as the arm; a library's weights on ImageNet's."""
    origin = Nfm.model_validate({"from": {"checkpoint": "a.pt", "model": model}}).from_
    assert origin.model is not None
    assert origin_classes(origin.model, 10) == expected
