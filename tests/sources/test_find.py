"""How the networks a recipe takes from are called."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mimetic.covariance.config import Nfm
from mimetic.recipe.load import load
from mimetic.sources.find import Consumer, find_sources


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
    assert Nfm.model_validate({"from": origin}).from_.display_name == expected


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
    recipe = load(
        {"recipe": 1, "name": "x", "data": "digits", "model": {"type": "convmixer", "dim": 8, "depth": 1}}
    )
    ref = Nfm.model_validate({"from": {"checkpoint": "a.pt", "model": model}}).from_
    (source,) = find_sources(ref, Consumer(recipe=recipe, arm=recipe.arms["main"], seed=0))
    assert source.build(meta=True).model(torch.empty(2, 1, 32, 32, device="meta")).shape[1] == expected


@pytest.mark.parametrize("weights", [{"weights": "DEFAULT"}, {"checkpoint": "net.pt"}])
def test_untrained_heads_are_the_same_for_all_seeds(weights: dict[str, str]) -> None:
    """Ten outputs on top of trained weights, as for finetuning."""
    recipe = load(
        {"recipe": 1, "name": "x", "data": "digits", "model": {"type": "convmixer", "dim": 8, "depth": 1}}
    )
    origin = {"model": {"type": "timm", "name": "resnet10t"}, **weights, "head": 10}
    ref = Nfm.model_validate({"from": origin}).from_
    found = [
        find_sources(ref, Consumer(recipe=recipe, arm=recipe.arms["main"], seed=seed))[0] for seed in (0, 3)
    ]
    assert [(source.num_classes, source.own_head, source.seed) for source in found] == [(10, True, 0)] * 2
    for incomplete in ({"stage": "small"}, {"checkpoint": "net.pt"}):
        with pytest.raises(ValidationError, match="replaces the last layer of a trained `model`"):
            Nfm.model_validate({"from": {**incomplete, "head": 10}})
