"""A model that cannot take images of the data's size is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.recipe.load import load
from mimetic.study.planning.arms import plan_arms


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ({"type": "convmixer", "patch_size": 16}, "digits", r"Calculated padded input size .* \(8 x 8\)"),
        ({"type": "torchvision", "name": "vit_b_16"}, "cifar10", "Wrong image height! Expected 224"),
        ("vit", "digits", "Input images are 8×8, and the model is for 32×32, its `image_size`"),
        ({"type": "timm", "name": "vit_tiny_patch16_224"}, "cifar10", r"Input height \(32\) doesn't match"),
    ],
)
def test_wrong_sizes_are_said_at_planning(model: dict[str, Any] | str, data: str, said: str) -> None:
    """The forward's own words, the arm, and what to change."""
    recipe = load({"recipe": 1, "name": "x", "model": model, "data": data, "train": {}})
    with pytest.raises(
        RecipeError, match=rf"arm `main`: the model cannot take the data's images: {said}"
    ) as caught:
        plan_arms(recipe)
    assert caught.value.issues[0].path == ("arms", "main", "model")
    assert caught.value.issues[0].hint == "set `data.image_size`, or change the model"


@pytest.mark.parametrize("user", ["network", "learner"])
def test_missing_data_are_reported_where_the_data_are(user: str, tmp_path: Path) -> None:
    """Neither the model nor the learner is to blame."""
    data = {"type": "image_folder", "path": "nowhere", "root": str(tmp_path), "val_size": 1}
    learns = (
        {"model": "convmixer", "train": {}}
        if user == "network"
        else {"learner": {"type": "rfm", "images": 100}}
    )
    with pytest.raises(RecipeError) as caught:
        plan_arms(load({"recipe": 1, "name": "x", "data": data, **learns}))
    assert [(issue.path, issue.code) for issue in caught.value.issues] == [
        (("arms", "main", "data"), "MIM-D031")
    ]
