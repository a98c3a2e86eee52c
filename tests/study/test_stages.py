"""Stages: trained first, once, harvested by the arms; and what a user can get wrong about them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.errors import RunError
from mimetic.journal import read_journal
from mimetic.recipe.load import load
from mimetic.sources.find import trained_weights
from mimetic.study.planning.arms import plan_arms
from mimetic.study.stages import prepare_stages
from mimetic.study.study import run

from .conftest import PLAIN, filters

TINY: dict[str, Any] = {
    **PLAIN,
    "model": {**PLAIN["model"], "depth": 3, "kernel_size": 5},
    "seeds": 1,
    "arms": {"default": {}, "transfer": filters({"type": "filters", "from": {"stage": "second"}})},
    "stages": {
        "first": {"model": {"dim": 4, "depth": 2, "kernel_size": 3}, "seeds": [7, 8]},
        "second": {
            "model": {"depth": 2},
            **filters({"type": "filters", "from": {"stage": "first"}, "of": "change"}),
        },
    },
}

FROM_AN_ARM = {"transfer": filters({"type": "filters", "from": {"arm": "default"}}), "default": {}}


@pytest.fixture(scope="module")
def root(build_once: Any, in_this_process: Any) -> Path:
    """Return a root with one finished study: two stages in a row, then two arms."""

    def train(root: Path) -> None:
        with in_this_process():
            assert run(load(TINY), root=root, offline=True).complete

    return build_once("stages", train)


def test_stages_are_trained_in_order_and_kept(root: Path) -> None:
    """The first stage has its own two seeds, the second the study's; both left their weights."""
    found = sorted(str(p.relative_to(root / "stages")) for p in root.glob("stages/*/*/*/weights.safetensors"))
    names = [(path.split("/")[1], path.split("/")[2]) for path in found]

    assert names == [("first", "seed-7"), ("first", "seed-8"), ("second", "seed-0")]


def test_the_arm_starts_from_what_was_harvested(root: Path) -> None:
    """The plan of the trial names a harvest by its digest, and says how it was carried over."""
    plan = json.loads(next(root.glob("studies/*/*/transfer/seed-0/plan.json")).read_text())
    entry = next(e for e in plan["entries"] if e["parameter"] == "blocks.1.spatial.weight")

    assert len(entry["arguments"]["digest"]) == 32
    assert entry["std"] > 0
    assert entry["notes"] == ["depth 0.50 between blocks.0.spatial and blocks.1.spatial of stage second"]


def test_finished_stages_are_used_again(root: Path, in_this_process: Any) -> None:
    """Another study of the same stages trains none of them again."""
    before = {p: p.stat().st_mtime_ns for p in root.glob("stages/*/*/*/journal.jsonl")}
    with in_this_process():
        again = run(load({**TINY, "name": "again"}), root=root, offline=True)
    after = {p: p.stat().st_mtime_ns for p in root.glob("stages/*/*/*/journal.jsonl")}

    assert again.complete
    assert before == after


def test_an_arm_may_have_the_name_of_its_stage(tmp_path: Path, in_this_process: Any) -> None:
    """Each of the two has its own data and device, whatever they are called."""
    stage = {"data": {"train_size": 96}, "model": {"depth": 1}, "train": {"device": "cpu"}, "seeds": [7]}
    same = {
        **PLAIN,
        "seeds": 1,
        "arms": {"small": filters({"type": "filters", "from": {"stage": "small"}})},
        "stages": {"small": stage},
    }
    with in_this_process():
        assert run(load(same), root=tmp_path, offline=True).complete
        assert run(load(same), root=tmp_path, offline=True, resume=True).complete


def test_a_changed_stage_is_another_stage(root: Path) -> None:
    """What decides the weights of a stage, or of one it harvests, names its folder."""
    changed = {
        **TINY,
        "stages": {**TINY["stages"], "first": {**TINY["stages"]["first"], "train": {"epochs": 2}}},
    }
    digests = {"stages/first": "x", "stages/second": "x"}
    one = prepare_stages(load(TINY), root, digests)
    other = prepare_stages(load(changed), root, digests)

    assert list(one) == ["first", "second"]
    assert one["first"] != other["first"]
    assert one["second"] != other["second"]


def test_seeds_that_are_averaged_name_the_stage(root: Path) -> None:
    """A stage that harvests the mean over other seeds begins elsewhere, so it is another stage."""
    first = {**TINY["stages"]["first"], "seeds": [7, 9]}
    digests = {"stages/first": "x", "stages/second": "x"}
    one = prepare_stages(load(TINY), root, digests)
    other = prepare_stages(load({**TINY, "stages": {**TINY["stages"], "first": first}}), root, digests)

    assert one["first"] == other["first"]
    assert one["second"] != other["second"]


def test_plans_show_what_is_not_trained_yet() -> None:
    """Before anything is trained, the plan says what will be taken from where."""
    plan = plan_arms(load(TINY))["transfer"]
    entry = next(e for e in plan.entries if e.parameter == "blocks.1.spatial.weight")

    assert entry.arguments["harvest"] == "pending"
    assert entry.moments is None
    assert entry.notes == ("depth 0.50 between blocks.0.spatial and blocks.1.spatial of stage second",)


@pytest.mark.slow
def test_a_failed_stage_fails_what_harvests_it(tmp_path: Path, in_this_process: Any) -> None:
    """The trial that needs it says which stage failed and why; the other arm goes on."""
    wild = {
        **TINY,
        "stages": {
            "first": TINY["stages"]["first"],
            "second": {**TINY["stages"]["second"], "train": {"optimizer": {"type": "sgd", "lr": 1e30}}},
        },
    }
    with in_this_process():
        result = run(load(wild), root=tmp_path, offline=True)

    assert result.statuses == {"default · seed 0": "FINISHED", "transfer · seed 0": "FAILED"}
    end = read_journal(result.folder / "transfer" / "seed-0" / "journal.jsonl")[-1]
    assert "stage `second`, seed 0, is FAILED" in end["reason"]
    assert "diverged" in end["reason"]


def test_weights_of_a_stage_that_never_ran(tmp_path: Path) -> None:
    """Asking for them says how the stage stands."""
    with pytest.raises(RunError, match="stage `small`, seed 0, is PENDING"):
        trained_weights(tmp_path, "small", 0)


def test_a_transfer_that_does_not_fit_is_found_before_anything_runs(tmp_path: Path) -> None:
    """Geometries are compared when the recipe is planned."""
    rule = {
        "id": "f",
        "match": r"blocks\.\d+\.channel",
        "covariance": {"type": "nfm", "from": {"stage": "first"}, "kind": "pointwise_conv"},
    }
    wrong = {**TINY, "arms": {"nfm": {"init": [rule]}}, "stages": {"first": TINY["stages"]["first"]}}
    with pytest.raises(RecipeError, match="input channels differ"):
        run(load(wrong), root=tmp_path / "runs", offline=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_arm_begins_from_an_arm(tmp_path: Path, in_this_process: Any) -> None:
    """It waits for the other, takes its weights of the same seed, and the plan says which."""
    recipe = {**TINY, "arms": FROM_AN_ARM, "stages": {}, "seeds": 2}
    with in_this_process():
        result = run(load(recipe), root=tmp_path, offline=True)

    assert result.complete
    plan = json.loads((result.folder / "transfer" / "seed-1" / "plan.json").read_text())
    entry = next(e for e in plan["entries"] if e["parameter"] == "blocks.1.spatial.weight")
    assert entry["notes"] == ["depth 0.50 at blocks.1.spatial of arm default"]


def test_an_arm_without_weights_gives_none(tmp_path: Path, in_this_process: Any) -> None:
    """The trial that needs them fails with the repair, and the other finishes."""
    train = {**TINY["train"], "checkpoint": {"keep_weights": False}}
    recipe = {**TINY, "arms": FROM_AN_ARM, "stages": {}, "train": train}
    with in_this_process():
        result = run(load(recipe), root=tmp_path, offline=True)

    assert result.statuses == {"transfer · seed 0": "FAILED", "default · seed 0": "FINISHED"}
    reason = read_journal(result.folder / "transfer" / "seed-0" / "journal.jsonl")[-1]["reason"]
    assert reason == (
        "arm `default`, seed 0, finished without saving its weights; leave "
        "`train.checkpoint.keep_weights` at true"
    )
