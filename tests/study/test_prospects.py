"""What is known of the networks rules take from, before they are trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimetic.errors import UserError
from mimetic.recipe import load
from mimetic.recipe.measured import Filters
from mimetic.study.prospects import prospects

TINY: dict[str, Any] = {
    "recipe": 1,
    "name": "harvested",
    "model": {"type": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2},
    "data": {"type": "digits", "train_size": 64, "test_size": 32},
    "train": {"epochs": 1, "batch_size": 32},
    "seeds": 2,
    "arms": {
        "agop": {
            "init": [
                {
                    "id": "f",
                    "match": {"kind": "depthwise_conv"},
                    "covariance": {"type": "agop", "from": {"stage": "one"}, "images": 16, "probes": 2},
                }
            ]
        }
    },
    "stages": {"one": {"seeds": [7]}},
}


def test_prospects_know_the_layers_a_rule_asks_for() -> None:
    """Only layers of the kind the rules match are looked at."""
    recipe = load(TINY)
    (harvest,) = prospects(recipe, recipe.arms["agop"]).values()

    assert [layer.layer for layer in harvest.layers] == ["blocks.0.spatial", "blocks.1.spatial"]
    assert harvest.pending
    assert harvest.origin == "stage one"


def test_a_folder_that_is_no_trial_is_refused(tmp_path: Path) -> None:
    """The repair says what a trial's folder looks like."""
    recipe = load({**TINY, "stages": {}, "arms": {"default": {}}})
    rule = {
        "id": "f",
        "match": {"kind": "depthwise_conv"},
        "covariance": {"type": "filters", "from": {"trial": str(tmp_path)}},
    }
    arm = load({**TINY, "stages": {}, "arms": {"x": {"init": [rule]}}}).arms["x"]

    assert isinstance(arm.init[0].covariance, Filters)
    with pytest.raises(UserError, match="is not the folder of a finished trial"):
        prospects(recipe, arm)


SELECTED: dict[str, Any] = {
    **TINY,
    "arms": {
        "selection": {
            "init": [
                {
                    "id": "all",
                    "match": {"layer": "(?!head).*", "param": ".*"},
                    "init": {"type": "weight_selection", "from": {"stage": "one"}},
                }
            ]
        }
    },
    "stages": {"one": {"seeds": [7], "model": {"dim": 16}}},
}


def test_weights_are_those_of_one_network() -> None:
    """Several seeds cannot be averaged as covariances are."""
    several = json.loads(json.dumps(SELECTED))
    several["stages"]["one"]["seeds"] = [7, 8]
    recipe = load(several)

    with pytest.raises(UserError, match=r"`weight_selection` begins from one network, .* 2 seeds"):
        prospects(recipe, recipe.arms["selection"])
