"""Values of swept arms are chosen on validation data before the arms are compared."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mimetic.errors import RunError
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.study.comparing.comparison import compare_all
from mimetic.study.comparing.questions import Options
from mimetic.study.comparing.results import TrialResult
from mimetic.study.planning.arms import plan_arms, traced_network
from mimetic.study.selection import Choice, choose, selection, with_choices
from mimetic.study.study import run
from mimetic.study.trials.cache import TracedNetwork

RECIPE = {
    "recipe": 1,
    "name": "tuned",
    "model": {"type": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4},
    "data": {"type": "digits", "train_size": 256, "val_size": 200},
    "train": {"epochs": 1, "optimizer": {"type": "sgd", "lr": 0.1}},
    "seeds": [0],
    "study": {"select": {"seeds": [7]}},
    "arms": {
        "default": {},
        "swept": {
            "init": [{"id": "all", "match": {"kind": "depthwise_conv"}, "covariance": "closed_form"}],
            "sweep": {"train.optimizer.lr": [1e-9, 0.1]},
        },
    },
}
NAMES = ["swept-lr1e-09", "swept-lr0.1"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Return the recipe above."""
    return load(RECIPE)


def test_the_selection_has_the_candidates_alone(recipe: Recipe) -> None:
    """They have their own seeds and metric, and are ordinary arms."""
    found = selection(recipe)
    assert (found.name, found.seeds, found.study.metric) == ("tuned-selection", (7,), "val/acc")
    assert list(found.arms) == NAMES
    assert found.study.select is None
    assert {arm.candidate_of for arm in found.arms.values()} == {None}


@pytest.mark.parametrize(("metric", "best"), [("val/acc", 1), ("val/loss", 0)])
def test_the_best_mean_is_chosen(recipe: Recipe, metric: str, best: int) -> None:
    """Best is highest or lowest as the metric says, and a candidate that failed is none."""
    results = [
        TrialResult(name, 7, "FINISHED", {metric: {1: 0.1 + index}}) for index, name in enumerate(NAMES)
    ]
    options = Options(metrics=(metric,), baseline=NAMES[0])
    (choice,) = choose(recipe, *compare_all({"": results}, options))
    assert (choice.arm, choice.candidate) == ("swept", NAMES[best])
    failed = [TrialResult(name, 7, "FAILED") for name in NAMES]
    with pytest.raises(RunError) as caught:
        choose(recipe, *compare_all({"": failed}, options))
    assert caught.value.code == "MIM-Y082"


def test_the_arm_takes_the_chosen_values(recipe: Recipe) -> None:
    """The recipe that is compared says in its description what was chosen among."""
    choice = Choice("swept", NAMES[0], {NAMES[0]: 12.5, NAMES[1]: 11.0}, "val/acc")
    found = with_choices(recipe, [choice])
    assert list(found.arms) == ["default", "swept"]
    train = found.arms["swept"].train
    assert train is not None
    assert train.optimizer.lr == 1e-9
    assert found.description == (
        "swept takes the values of swept-lr1e-09 (val/acc: swept-lr1e-09 12.5, swept-lr0.1 11)"
    )


def test_arms_of_one_architecture_are_traced_once(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates that differ in their training do not build their network again; plans are their own."""
    built = []

    def counted(*args: Any, **options: Any) -> TracedNetwork:
        built.append(options["at"])
        return traced_network(*args, **options)

    monkeypatch.setattr("mimetic.study.planning.arms.traced_network", counted)
    plans = plan_arms(recipe)
    assert len(built) == 1
    assert len(plans) == 4
    assert plans["default"].hash != plans["swept"].hash == plans[NAMES[0]].hash


@pytest.mark.slow
def test_a_selection_is_trained_first_and_resumed(
    tmp_path: Path, in_this_process: Callable[[], AbstractContextManager[None]]
) -> None:
    """Two studies are trained, and a second command trains nothing more."""
    with in_this_process():
        result = run(RECIPE, root=tmp_path, offline=True)
        again = run(RECIPE, root=tmp_path, offline=True, resume=True)
    assert {path.name for path in (tmp_path / "studies").iterdir()} == {"tuned", "tuned-selection"}
    assert [row.arm for row in result.comparison.rows] == ["default", "swept"]
    assert again.folder == result.folder
    assert again.comparison == result.comparison
    resolved = load(result.folder / "resolved.yaml")
    assert resolved.arms["swept"].train == resolved.arms["default"].train
