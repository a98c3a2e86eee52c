"""What a study is resumed from: its recipe, its data and its plans are those of its trials."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mimetic import files
from mimetic.errors import UserError
from mimetic.journal import read_journal
from mimetic.plans.plan import Plan
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.sources.find import stage_folders, write_stage_folders
from mimetic.study import study_folder
from mimetic.study.environment import environment
from mimetic.study.layout import Trial
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study_folder import _source_names, accepted_recipe, grow, latest, start
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial

from .conftest import PLAIN

Parts = tuple[Recipe, dict[str, Plan], dict[str, str]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Return a recipe, its plans and the digests of its data."""
    recipe = load(PLAIN)
    return recipe, plan_arms(recipe), open_data(recipe)


@pytest.fixture(scope="module", autouse=True)
def _one_environment() -> Iterator[None]:
    """Ask for versions and commit once: git takes longer than these tests."""
    found = environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_folder, "environment", lambda: dict(found))
        yield


def grown(root: Path, recipe: Recipe, plans: dict[str, Plan], digests: dict[str, str]) -> tuple[str, ...]:
    """Let the latest study of a recipe follow it."""
    return grow(latest(root, recipe), recipe, plans, digests)


def rewrite(folder: Path, **values: Any) -> None:
    """Change the record of a study."""
    record: dict[str, Any] = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(record | values))


def test_a_study_is_resumed(parts: Parts, tmp_path: Path) -> None:
    """Nothing changed; a study without contents or digests, as another version wrote it, is not refused."""
    folder = start(tmp_path, *parts)
    record = (folder / "study.json").read_bytes()
    assert grown(tmp_path, *parts) == ()
    assert (folder / "study.json").read_bytes() == record
    assert not (folder / "revisions").exists()
    rewrite(folder, contents={})
    assert grown(tmp_path, parts[0], parts[1], {**parts[2], "arms/later": "a"}) == ()


def test_other_data_are_refused(parts: Parts, tmp_path: Path) -> None:
    """With both digests, and before anything is trained."""
    recipe, plans, digests = parts
    folder = start(tmp_path, recipe, plans, {**digests, "arms/default": "0123"})

    with pytest.raises(UserError, match="without --resume") as refused:
        grown(tmp_path, recipe, plans, digests)
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


@pytest.mark.parametrize(("part", "code"), [("plan", "MIM-Y324"), ("files", "MIM-Y325")])
def test_another_plan_is_refused(parts: Parts, tmp_path: Path, part: str, code: str) -> None:
    """As another version, a plug-in or a file that changed makes it from the same recipe."""
    folder = start(tmp_path, *parts)
    contents = json.loads((folder / "study.json").read_text())["contents"]
    rewrite(folder, contents={"default": contents["default"] | {part: "4567"}})

    with pytest.raises(UserError, match="without --resume") as refused:
        grown(tmp_path, *parts)
    assert refused.value.code == code
    assert all(text in str(refused.value) for text in ("`default`", "4567", contents["default"][part]))


CHANGES = [
    ({"seeds": 3}, ["seeds: [0, 1] → [0, 1, 2]"]),
    ({"seeds": [1]}, ["seeds: [0, 1] → [1]"]),
    ({"arms": {"default": {}, "b": {}}}, ["arms.b: added"]),
    ({"arms": {"b": {}}}, ["arms.default: removed", "arms.b: added"]),
    ({"train": {"epochs": 3, "batch_size": 32}}, ["arms.default.train.epochs: 1 → 3"]),
    ({"study": {"metric": "test/loss"}}, ["study.metric: test/acc → test/loss"]),
    (
        {"train": {**PLAIN["train"], "checkpoint": {"every": 2}}},
        ["arms.default.train.checkpoint.every: 1 → 2"],
    ),
]
REFUSED = [
    ({"train": {"epochs": 0, "batch_size": 32}}, "`arms.default.train.epochs: 1 → 0`"),
    ({"train": {"epochs": 2, "batch_size": 16}}, "`arms.default.train.batch_size: 32 → 16`"),
    ({"train": {**PLAIN["train"], "clip_norm": 1.0}}, "`arms.default.train.clip_norm: none → 1.0`"),
    ({"train": {**PLAIN["train"], "optimizer": "sgd"}}, "`arms.default.train.optimizer.type: adamw → sgd`"),
    ({"init": [{"id": "a", "match": "head", "init": "zeros"}]}, "`arms.default.init: [] → [{"),
    ({"measure": {"ansatz": {}}}, "`arms.default.measure: added`"),
    ({"seeds": 3, "data": {**PLAIN["data"], "test_size": 16}}, "`arms.default.data.test_size: 32 → 16`"),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_study_follows_its_recipe(
    parts: Parts, tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    """What changed is recorded as values, beside the former recipe; the second time nothing changes."""
    folder = start(tmp_path, *parts)
    recipe = load(PLAIN | change)
    arms = dict.fromkeys(recipe.arms, parts[1]["default"])
    digests = {f"arms/{arm}": parts[2]["arms/default"] for arm in arms}

    assert list(grow(folder, recipe, arms, digests)) == expected
    record = json.loads((folder / "study.json").read_text())
    assert (record["arms"], record["seeds"]) == (list(recipe.arms), list(recipe.seeds))
    assert [entry["changes"] for entry in record["revisions"]] == [expected]
    assert load(folder / "resolved.yaml") == recipe == accepted_recipe(folder)
    assert load(folder / "revisions" / "1" / "resolved.yaml") == parts[0]
    assert grow(folder, recipe, arms, digests) == ()


@pytest.mark.parametrize(("change", "expected"), REFUSED)
def test_a_study_refuses_what_changes_its_trials(
    parts: Parts, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    """With the values, and nothing is written."""
    folder = start(tmp_path, *parts)
    before = (folder / "study.json").read_bytes()

    with pytest.raises(UserError) as refused:
        grow(folder, load(PLAIN | change), *parts[1:])
    assert refused.value.code == "MIM-Y321"
    assert expected in str(refused.value)
    assert "seeds" not in str(refused.value).split(";")[0]
    assert (folder / "study.json").read_bytes() == before


@pytest.mark.parametrize("at", range(9))
@pytest.mark.parametrize("then", [{}, {"seeds": 3}, {"seeds": 4}])
def test_a_change_that_is_interrupted_is_completed(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, then: dict[str, Any]
) -> None:
    """Killed before any of its writes, a study has its former recipe, and follows the next one."""
    folder = start(tmp_path, *parts)
    written, write = 0, files.write_atomically

    def killed(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written > at:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(study_folder, "write_atomically", killed)
        patch.setattr(files, "write_atomically", killed)
        with contextlib.suppress(KeyboardInterrupt):
            grow(folder, load(PLAIN | {"seeds": 3}), *parts[1:])
    if json.loads((folder / "study.json").read_text())["revisions"]:
        assert at == 8  # not interrupted
        return
    assert accepted_recipe(folder) == parts[0]

    grow(folder, load(PLAIN | then), *parts[1:])

    record = json.loads((folder / "study.json").read_text())
    assert accepted_recipe(folder) == load(folder / "resolved.yaml") == load(PLAIN | then)
    assert record["seeds"] == list(load(PLAIN | then).seeds)
    if record["revisions"]:
        assert load(folder / "revisions" / "1" / "resolved.yaml") == parts[0]


def test_versions_that_changed_are_said(parts: Parts, tmp_path: Path) -> None:
    """The study goes on; its record has both."""
    folder = start(tmp_path, *parts)
    environment = json.loads((folder / "study.json").read_text())["environment"]
    rewrite(folder, environment=environment | {"torch": "1.0"})

    (note,) = grown(tmp_path, *parts)
    assert note.startswith(f"torch: 1.0 → {environment['torch']}")
    (entry,) = json.loads((folder / "study.json").read_text())["revisions"]
    assert entry["environment"]["torch"] == "1.0"


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
