"""What trials take from trained networks: the same for all of them, measured once."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mimetic.errors import UserError
from mimetic.recipe import load
from mimetic.recipe.measured import Filters, Nfm
from mimetic.study.harvests import origin_name, prospects
from mimetic.study.study import run

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


def test_all_trials_take_the_same_from_one_network(tmp_path: Path) -> None:
    """Random probes are the network's own: no trial's seed decides what the others begin from."""
    result = run(load(TINY), root=tmp_path, offline=True, workers=1)
    plans = [json.loads((result.folder / "agop" / f"seed-{n}" / "plan.json").read_text()) for n in (0, 1)]
    digests = [
        [e["arguments"]["digest"] for e in plan["entries"] if e["initializer"] == "gaussian"]
        for plan in plans
    ]

    assert result.complete
    assert len(digests[0]) == 2
    assert digests[0] == digests[1]
    assert len(list(tmp_path.glob("stages/*/one/seed-7/harvest-*.safetensors"))) == 1


def test_prospects_know_the_layers_a_rule_asks_for() -> None:
    """Only layers of the kind the rules match are looked at."""
    recipe = load(TINY)
    (harvest,) = prospects(recipe, recipe.arms["agop"]).values()

    assert [layer.layer for layer in harvest.layers] == ["blocks.0.spatial", "blocks.1.spatial"]
    assert harvest.pending
    assert harvest.origin == "stage one"


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


@pytest.mark.slow
def test_weights_are_taken_from_a_stage_as_it_was_trained(tmp_path: Path) -> None:
    """Before training an arm holds every other channel of the stage's final weights, in each trial."""
    result = run(load(SELECTED), root=tmp_path, offline=True, workers=1)
    (trained,) = tmp_path.glob("stages/*/one/seed-7/weights.safetensors")
    plans = [
        json.loads((result.folder / "selection" / f"seed-{n}" / "plan.json").read_text()) for n in (0, 1)
    ]
    taken = [e for e in plans[0]["entries"] if e["initializer"] == "weight_selection"]
    weight = next(e for e in taken if e["parameter"] == "blocks.1.channel.weight")
    expected = load_file(trained)["blocks.1.channel.weight"][::2, ::2].double()

    assert result.complete
    assert len(taken) == 4 + 2 * 8
    assert weight["mean"] == pytest.approx(float(expected.mean()), rel=1e-9)
    assert [e["arguments"] for e in plans[0]["entries"]] == [e["arguments"] for e in plans[1]["entries"]]


def test_weights_are_those_of_one_network() -> None:
    """Several seeds cannot be averaged as covariances are."""
    several = json.loads(json.dumps(SELECTED))
    several["stages"]["one"]["seeds"] = [7, 8]
    recipe = load(several)

    with pytest.raises(UserError, match=r"`weight_selection` begins from one network, .* 2 seeds"):
        prospects(recipe, recipe.arms["selection"])
