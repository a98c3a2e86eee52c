"""What a study is resumed from: its recipe, its data and its plans are those of its trials."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimetic.errors import UserError
from mimetic.journal import read_journal
from mimetic.plans.plan import Plan
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.sources.find import stage_folders, write_stage_folders
from mimetic.study.layout import Trial
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study_folder import _source_names, find_to_continue, start
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial

from .conftest import PLAIN

Parts = tuple[Recipe, dict[str, Plan], dict[str, str]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Return a recipe, its plans and the digests of its data."""
    recipe = load(PLAIN)
    return recipe, plan_arms(recipe), open_data(recipe)


def test_a_study_is_resumed(parts: Parts, tmp_path: Path) -> None:
    """Nothing changed; a study without plans or digests, as another version wrote it, is not refused."""
    folder = start(tmp_path, *parts)
    assert find_to_continue(tmp_path, *parts) == folder
    (folder / "default" / "plan.json").unlink()
    assert find_to_continue(tmp_path, parts[0], parts[1], {**parts[2], "arms/later": "a"}) == folder


def test_other_data_are_refused(parts: Parts, tmp_path: Path) -> None:
    """With both digests, and before anything is trained."""
    recipe, plans, digests = parts
    folder = start(tmp_path, recipe, plans, {**digests, "arms/default": "0123"})

    with pytest.raises(UserError, match="without --resume") as refused:
        find_to_continue(tmp_path, recipe, plans, digests)
    assert refused.value.code == "MIM-Y323"
    assert all(text in str(refused.value) for text in ("arms/default", "0123", digests["arms/default"]))
    assert folder.is_dir()


def test_data_that_changed_after_planning(parts: Parts, tmp_path: Path) -> None:
    """A worker compares what it loads with what the coordinator planned, and trains on nothing else."""
    recipe, _, digests = parts
    folder = start(tmp_path, *parts)
    changed = Trial(str(folder), "default", recipe.seeds[0], data="0123")
    same = Trial(str(folder), "default", recipe.seeds[0], data=digests["arms/default"])

    assert run_trial(changed, TrialCache(), lambda: None) == "FAILED"
    (end,) = read_journal(changed.journal)
    assert all(text in end["reason"] for text in ("0123", digests["arms/default"], "--resume"))
    assert run_trial(same, TrialCache(), lambda: "enough") == "KILLED"


def test_another_plan_is_refused(parts: Parts, tmp_path: Path) -> None:
    """As another version or a plug-in that changed makes it from the same recipe."""
    path = start(tmp_path, *parts) / "default" / "plan.json"
    plan: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"hash": "4567"}))

    with pytest.raises(UserError, match="without --resume") as refused:
        find_to_continue(tmp_path, *parts)
    assert refused.value.code == "MIM-Y324"
    assert all(text in str(refused.value) for text in ("`default`", "4567", str(plan["hash"])))


def test_extended_files_of_one_name_are_all_saved() -> None:
    """Also where names differ in case alone, or one is called as the recipe."""
    names = list(_source_names(["r.yaml", "a/base.yaml", "b/base.yaml", "c/BASE.yaml", "recipe.yaml"]))

    others = ["base.yaml", "base-2.yaml", "BASE-3.yaml", "recipe.yaml"]
    assert names == ["recipe.yaml", *(f"extends/{name}" for name in others)]


def test_stages_are_found_in_a_root_that_was_moved(tmp_path: Path) -> None:
    """A copy never reads the stages of its original."""
    study, stage = tmp_path / "runs/studies/tiny/1", tmp_path / "runs/stages/one-abc"
    for folder in (study, stage):
        folder.mkdir(parents=True)
    write_stage_folders(study, {"one": stage})
    assert stage_folders(study) == {"one": stage}

    (tmp_path / "runs").rename(tmp_path / "moved")
    assert stage_folders(tmp_path / "moved/studies/tiny/1") == {"one": tmp_path / "moved/stages/one-abc"}
