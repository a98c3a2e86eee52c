"""What trials take from trained networks: the same for all of them, measured once, no more than needed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mimetic.covariance.harvest import Harvest
from mimetic.data.load import load_dataset
from mimetic.graph.sites import find_sites
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.sources.collect import collect_inputs
from mimetic.sources.find import Consumer
from mimetic.study.study import run
from mimetic.surgery.network import build_network

from ..conftest import HARVESTED, PLAIN, SELECTED, filters


def test_all_trials_take_the_same_from_one_network(tmp_path: Path, in_this_process: Any) -> None:
    """Random probes are the network's own: no trial's seed decides what the others begin from."""
    with in_this_process():
        result = run(load(HARVESTED), root=tmp_path, offline=True)
    plans = [json.loads((result.folder / "agop" / f"seed-{n}" / "plan.json").read_text()) for n in (0, 1)]
    digests = [
        [e["arguments"]["digest"] for e in plan["entries"] if e["initializer"] == "gaussian"]
        for plan in plans
    ]

    assert result.complete
    assert len(digests[0]) == 2
    assert digests[0] == digests[1]
    assert len(list(tmp_path.glob("stages/*/one/seed-7/harvest-*.safetensors"))) == 1


def test_weights_are_taken_from_a_stage_as_it_was_trained(tmp_path: Path, in_this_process: Any) -> None:
    """Before training an arm holds every other channel of the stage's final weights, in each trial."""
    with in_this_process():
        result = run(load(SELECTED), root=tmp_path, offline=True)
    (trained,) = tmp_path.glob("stages/*/one/seed-7/weights.safetensors")
    plans = [
        json.loads((result.folder / "selection" / f"seed-{n}" / "plan.json").read_text()) for n in (0, 1)
    ]
    taken = [e for e in plans[0]["entries"] if e["initializer"] == "weight_selection"]
    recipe = load(SELECTED)
    arm = recipe.arms["selection"]
    assert arm.model is not None
    assert arm.data is not None
    dataset = load_dataset(arm.data)
    built = build_network(arm.model, shape=dataset.shape)
    harvests = collect_inputs(Consumer(recipe=recipe, arm=arm, study=result.folder, seed=0), dataset)
    resolve(arm, find_sites(built.model), seed=0, harvests=harvests).apply(built.model)
    expected = load_file(trained)["blocks.1.channel.weight"][::2, ::2]

    assert result.complete
    assert len(taken) == 4 + 2 * 8
    assert torch.equal(built.model.state_dict()["blocks.1.channel.weight"], expected)
    assert [e["arguments"] for e in plans[0]["entries"]] == [e["arguments"] for e in plans[1]["entries"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, in_this_process: Any) -> Path:
    """Return the folder of a study of one arm on one seed."""
    with in_this_process():
        alone = load({**PLAIN, "seeds": [3]})
        return run(alone, root=tmp_path_factory.mktemp("finished"), offline=True).folder


def _gathered(study: Path, recipe: Recipe, *, seed: int) -> Harvest:
    """Return what the arm `mine` takes."""
    arm = recipe.arms["mine"]
    assert arm.data is not None
    consumer = Consumer(recipe=recipe, arm=arm, study=study, seed=seed)
    (harvest,) = collect_inputs(consumer, load_dataset(arm.data)).values()
    assert isinstance(harvest, Harvest)
    return harvest


@pytest.mark.parametrize(("of", "expected"), [("weights", 0), ("change", 1)])
def test_a_network_is_made_as_it_began_only_where_asked(
    finished: Path, monkeypatch: pytest.MonkeyPatch, of: str, expected: int
) -> None:
    """Its plan is applied to a second network for `of: change`, and for nothing else."""
    applied: list[nn.Module] = []
    apply = Plan.apply

    def counted(plan: Plan, model: nn.Module) -> object:
        applied.append(model)
        return apply(plan, model)

    monkeypatch.setattr(Plan, "apply", counted)
    mine = filters({"type": "filters", "from": {"arm": "default"}, "of": of})
    recipe = load({**PLAIN, "arms": {"default": {}, "mine": mine}, "seeds": [3]})
    harvest = _gathered(finished, recipe, seed=3)

    assert [layer.layer for layer in harvest.layers] == ["blocks.0.spatial", "blocks.1.spatial"]
    assert len(applied) == expected


def test_a_trial_s_network_is_built_for_its_own_images(finished: Path) -> None:
    """A trial of other data, with another number of classes, may begin from it."""
    mine = filters({"type": "filters", "from": {"trial": str(finished / "default" / "seed-3")}})
    other = {"type": "synthetic", "shape": [8, 8], "classes": 4, "train_size": 16, "test_size": 4}
    recipe = load({**PLAIN, "arms": {"mine": mine}, "data": other})
    harvest = _gathered(finished, recipe, seed=0)

    assert [layer.layer for layer in harvest.layers] == ["blocks.0.spatial", "blocks.1.spatial"]
