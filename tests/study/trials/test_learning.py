"""Arms and stages that learn without backpropagation: journaled, exported, compared, and begun from."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.covariance.store import load_harvest
from mimetic.errors import UserError
from mimetic.files import write_text
from mimetic.journal import read_journal
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load
from mimetic.sources.collect import planned_inputs
from mimetic.sources.find import trial_source, write_stage_folders
from mimetic.sources.trained import LEARNED
from mimetic.study.comparing.comparison import compare_all
from mimetic.study.comparing.questions import Options
from mimetic.study.comparing.results import read_result
from mimetic.study.layout import Trial, is_finished
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.stages import prepare_stages
from mimetic.study.trials.trial import TrialCache, run_trial


def begun(stage: str, kind: str = "learned") -> dict[str, Any]:
    """Return an arm that begins from a stage."""
    covariance = {"type": kind, "from": {"stage": stage}}
    match = {"layer": "conv1", "kind": "conv"}
    return {"init": [{"id": "f", "match": match, "covariance": covariance, "scale": "match_default"}]}


TINY: dict[str, Any] = {
    "recipe": 1,
    "name": "learners",
    "model": {"type": "cifar_resnet", "depth": 8, "width": 8},
    "data": {"type": "digits", "train_size": 60, "val_size": 30, "test_size": 30},
    "train": {"epochs": 1, "batch_size": 30},
    "seeds": 1,
    "baseline": "cntk",
    "arms": {
        "cntk": {"learner": {"type": "cntk", "depth": 2, "images": 40}},
        "convrfm": {"learner": {"type": "convrfm", "depth": 2, "rounds": 1, "images": 40}},
        "rfm": {"learner": {"type": "rfm", "rounds": 1, "images": 40}},
        "network": begun("features"),
    },
    "stages": {
        "features": {
            "learner": {"type": "deep_convrfm", "depth": 2, "rounds": 1, "width": 4, "select": "last"}
        }
    },
}


@pytest.fixture(scope="module")
def study(build_once: Any) -> Path:
    """Return the folder of one finished study: three learners, and a network initialized from a fourth."""
    return build_once("learners", _train) / "studies" / "learners" / "now"


def _train(root: Path) -> None:
    recipe, shelf, folder = load(TINY), TrialCache(), root / "studies" / "learners" / "now"
    stages = prepare_stages(recipe, root, open_data(recipe))
    write_text(folder / "resolved.yaml", resolved(recipe))
    write_stage_folders(folder, stages)
    trials = [
        Trial(str(stages["features"]), "features", 0),
        *(Trial(str(folder), arm, 0) for arm in recipe.arms),
    ]
    assert [run_trial(trial, shelf, lambda: None) for trial in trials] == ["FINISHED"] * 5


def events_of(study: Path, arm: str) -> list[dict[str, Any]]:
    """Return the journal of an arm's only trial."""
    return read_journal(study / arm / "seed-0" / "journal.jsonl")


def test_rounds_are_epochs(study: Path) -> None:
    """The names are those of training; the last epoch tells again of the round that counts."""
    epochs = [event for event in events_of(study, "convrfm") if event["event"] == "epoch"]

    assert [event["epoch"] for event in epochs] == [0, 1, 2]
    assert {"train/acc", "val/acc", "test/acc", "train/loss", "test/loss", "ridge"} <= set(
        epochs[0]["metrics"]
    )
    chosen = int(epochs[2]["metrics"]["round"])
    assert epochs[chosen]["metrics"]["val/acc"] == max(event["metrics"]["val/acc"] for event in epochs)
    assert epochs[chosen]["metrics"]["test/acc"] == epochs[2]["metrics"]["test/acc"]


def test_round_zero_is_the_fixed_kernel(study: Path) -> None:
    """Arms of one seed see the same images, so ConvRFM begins where its CNTK ends."""
    (fixed,) = (event for event in events_of(study, "cntk") if event["event"] == "epoch")
    first = next(event for event in events_of(study, "convrfm") if event["event"] == "epoch")

    assert {name: first["metrics"][name] for name in ("test/acc", "test/loss", "ridge")} == {
        name: fixed["metrics"][name] for name in ("test/acc", "test/loss", "ridge")
    }


def test_what_was_learned_lies_beside_the_journal(study: Path) -> None:
    """As a covariance file, with the geometry of the patches; the fixed kernel leaves none."""
    found = load_harvest(study / "convrfm" / "seed-0" / LEARNED)
    whole = load_harvest(study / "rfm" / "seed-0" / LEARNED)
    artifacts = [event["file"] for event in events_of(study, "convrfm") if event["event"] == "artifact"]

    assert artifacts == [LEARNED]
    assert (found.statistic, found.origin) == ("learned", "convrfm, seed 0")
    assert [(part.kind, part.geometry.fan_in) for part in found.layers] == [("conv", 9)]
    assert [(part.kind, part.geometry.fan_in) for part in whole.layers] == [("linear", 64)]
    assert not (study / "cntk" / "seed-0" / LEARNED).exists()


def test_a_network_begins_from_what_a_stage_learned(study: Path) -> None:
    """Its first convolution is drawn from the M of the learner's first level."""
    plan = json.loads((study / "network" / "seed-0" / "plan.json").read_text())
    (entry,) = (entry for entry in plan["entries"] if entry["rule"] == "f")

    assert entry["parameter"] == "conv1.weight"
    assert entry["notes"] == ["depth 0.00 at patches.0 of stage features"]
    assert entry["arguments"]["digest"] is not None


def test_finished_learners_are_left_alone(study: Path) -> None:
    """A study that is continued runs none of them again, and is compared by the round that counts."""
    trials = [Trial(str(study), arm, 0) for arm in ("cntk", "convrfm", "rfm")]
    results = [read_result(trial) for trial in trials]
    rows = compare_all({"": results}, Options(metrics=("test/acc",), baseline="cntk"))[0].rows
    last = [event for event in events_of(study, "rfm") if event["event"] == "epoch"][-1]

    assert all(is_finished(trial) for trial in trials)
    assert [row.arm for row in rows] == ["cntk", "convrfm", "rfm"]
    assert rows[2].mean == pytest.approx(100.0 * last["metrics"]["test/acc"])


def test_trials_are_where_a_network_may_begin_too(study: Path) -> None:
    """`from: {trial: …}` reads the file beside the trial, and says what is missing where there is none."""
    arm = begun("x")
    arm["init"][0]["covariance"]["from"] = {"trial": str(study / "convrfm" / "seed-0")}
    recipe = load({**TINY, "arms": {"a": arm}, "stages": {}, "baseline": "a"})
    (found,) = planned_inputs(recipe, recipe.arms["a"]).values()

    assert found.origin == f"trial {study / 'convrfm' / 'seed-0'}"
    assert found.digest is not None
    with pytest.raises(UserError, match=r"the trial there is FINISHED\).*learns features"):
        trial_source(study / "cntk" / "seed-0").available(recipe.arms["a"].init[0].covariance)


def test_learners_stop_when_asked(study: Path, tmp_path: Path) -> None:
    """Between blocks of work; the trial is KILLED with the reason and begins anew later."""
    (tmp_path / "resolved.yaml").write_text((study / "resolved.yaml").read_text())
    trial = Trial(str(tmp_path), "convrfm", 0)

    assert run_trial(trial, TrialCache(), lambda: "enough") == "KILLED"
    assert read_journal(trial.journal)[-1]["reason"] == "enough"
    assert run_trial(trial, TrialCache(), lambda: None) == "FINISHED"


def wrong(**changes: Any) -> str:
    """Return what is said of a recipe that cannot be run."""
    with pytest.raises(RecipeError) as raised:
        plan_arms(load({**TINY, **changes}))
    return str(raised.value)


def test_mistakes_are_told_before_anything_starts() -> None:
    """Where to choose, what fits, and what a stage can give."""
    bare = {"type": "digits", "train_size": 60}
    assert "selecting among several ridges needs validation images, and arm `cntk`" in wrong(data=bare)
    deep = {"cntk": {"learner": {"type": "cntk", "depth": 4}}}
    assert "8×8 are too small for 4 convolutions of side 3" in wrong(arms=deep, stages={})
    fixed = {"features": {"learner": {"type": "cntk", "depth": 2}}}
    assert "`cntk` learns no features to initialize from" in wrong(stages=fixed)
    trained = {"features": {"train": {"epochs": 1}}}
    assert "stage features trains a network, and `learned` is what a `learner`" in wrong(stages=trained)
    arms = {**TINY["arms"], "network": begun("features", "nfm")}
    assert "stage features learns without a network, and `nfm` is measured on one" in wrong(arms=arms)


def test_learners_take_the_place_of_what_is_inherited() -> None:
    """Model, training and rules of the recipe are for the other arms; and the other way round."""
    recipe = load(
        {
            **TINY,
            **begun("features"),
            "arms": {
                "network": {},
                "learner": {"learner": "rfm"},
                "again": {"extends": "learner", "model": {"type": "cifar_resnet"}, "train": {"epochs": 1}},
            },
            "baseline": "network",
        }
    )
    network, learner, again = recipe.arms.values()

    assert network.learner is None
    assert len(network.init) == 1
    assert (learner.model, learner.train, learner.init) == (None, None, ())
    assert (again.learner, again.init) == (None, ())
    assert again.model is not None


def test_a_learner_and_a_network_in_one_arm_are_refused() -> None:
    """The message says which of the two to remove."""
    with pytest.raises(RecipeError, match=r"MIM-R014"):
        load({**TINY, "arms": {"both": {"learner": "rfm", "model": {"type": "vgg11"}}}, "stages": {}})


def test_learned_covariances_come_from_stages_or_trials() -> None:
    """A checkpoint holds weights, and nothing a learner learned."""
    arm = begun("x")
    arm["init"][0]["covariance"]["from"] = {"checkpoint": "a.pt"}
    with pytest.raises(RecipeError, match="is in a stage or a trial"):
        load({**TINY, "arms": {"a": arm}, "stages": {}, "baseline": "a"})
