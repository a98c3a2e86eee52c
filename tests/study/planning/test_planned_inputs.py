"""What is known of the networks rules take from, before they are trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mimetic.config.errors import RecipeError
from mimetic.covariance.config import Filters
from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import ConvMixer
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.sources.collect import planned_inputs

from ..conftest import HARVESTED, PLAIN, SELECTED, filters


def test_planned_inputs_know_the_layers_a_rule_asks_for() -> None:
    """Only layers of the kind the rules match are looked at."""
    recipe = load(HARVESTED)
    (harvest,) = planned_inputs(recipe, recipe.arms["agop"]).values()

    assert [layer.layer for layer in harvest.layers] == ["blocks.0.spatial", "blocks.1.spatial"]
    assert harvest.digest is None
    assert harvest.origin == "stage one"


def test_a_folder_that_is_no_trial_is_refused(tmp_path: Path) -> None:
    """The repair says what a trial's folder looks like."""
    mine = filters({"type": "filters", "from": {"trial": str(tmp_path)}})
    arm = load({**PLAIN, "arms": {"mine": mine}}).arms["mine"]

    assert isinstance(arm.init[0].covariance, Filters)
    with pytest.raises(UserError, match="is not the folder of a finished trial"):
        planned_inputs(load(PLAIN), arm)


def test_weights_are_those_of_one_network() -> None:
    """Several seeds cannot be averaged as covariances are."""
    several = json.loads(json.dumps(SELECTED))
    several["stages"]["one"]["seeds"] = [7, 8]
    recipe = load(several)

    with pytest.raises(UserError, match=r"`weight_selection` takes one network, .* 2 seeds"):
        planned_inputs(recipe, recipe.arms["selection"])


def _from_checkpoint(path: Path, **given: Any) -> Recipe:
    """Return a recipe whose one arm takes from a file."""
    covariance = {"type": "filters", "from": {"checkpoint": str(path)}, **given}
    return load({**PLAIN, "arms": {"mine": filters(covariance)}})


def test_a_checkpoint_is_compared_before_anything_is_trained(tmp_path: Path) -> None:
    """One that is absent, of another architecture, or of a training that diverged, with the tensors."""
    path = tmp_path / "w.safetensors"
    recipe = _from_checkpoint(path)
    with pytest.raises(RecipeError, match="there is no such checkpoint") as caught:
        planned_inputs(recipe, recipe.arms["mine"], at=recipe.address("mine"))
    assert caught.value.issues[0].path == ("arms", "mine", "init", "f", "covariance", "from")

    wide = ConvMixer(dim=16, depth=2, kernel_size=3, patch_size=2)
    save_file(build(wide, in_channels=1, num_classes=10, seed=0).state_dict(), path)
    with pytest.raises(RecipeError, match=r"another architecture: .*weight` 16×1×2×2 instead of 8×1×2×2"):
        planned_inputs(recipe, recipe.arms["mine"])

    same = ConvMixer(dim=8, depth=2, kernel_size=3, patch_size=2)
    state = build(same, in_channels=1, num_classes=10, seed=0).state_dict()
    save_file(state, path)
    (harvest,) = planned_inputs(recipe, recipe.arms["mine"]).values()
    assert harvest.digest is None

    save_file({**state, "blocks.1.spatial.weight": torch.full((8, 1, 3, 3), torch.nan)}, path)
    with pytest.raises(RecipeError, match=r"NaN or infinity in `blocks\.1\.spatial\.weight` \(8×1×3×3\)"):
        planned_inputs(recipe, recipe.arms["mine"])


def test_a_checkpoint_does_not_tell_what_changed(tmp_path: Path) -> None:
    """Said when the recipe is read: of these only the end is known."""
    with pytest.raises(RecipeError, match="only those after it are known") as caught:
        _from_checkpoint(tmp_path, of="change")
    assert caught.value.issues[0].hint == "take a stage or an arm, or write `of: weights`"
