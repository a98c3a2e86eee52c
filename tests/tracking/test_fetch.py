"""A run brought back as files: its own folder, a copy from the store, and the refusals."""

from pathlib import Path

import pytest

from mimetic.config.errors import RecipeError
from mimetic.covariance.trained_ref import TrainedRef
from mimetic.errors import RunError, UserError
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.saved import read_recipe, write_recipe, write_run_folders
from mimetic.sources.find import Consumer, find_sources
from mimetic.tracking import log, runs
from mimetic.tracking.fetch import fetch_trial, with_local_runs
from mimetic.tracking.store import Store

STUDY = "tiny/20261121-021500"
WEIGHTS = "weights.safetensors"


def tracked(store: Store, tmp_path: Path, *, arm: str = "default", weights: bool = True) -> str:
    """Return the id of a finished trial's run with its artifacts."""
    run_id = runs.create_run(store, runs.NewRun(study=STUDY, arm=arm, seed=3, params={}))
    for name, folder in (("resolved.yaml", "recipe"), (WEIGHTS, "")):
        (tmp_path / name).write_text(name)
        if weights or name != WEIGHTS:
            log.log_files(store, log.artifacts_of(store, run_id), [tmp_path / name], folder=folder)
    runs.end_run(store, run_id, "FINISHED")
    return run_id


def test_a_run_of_this_root_is_its_trial(store: Store, root: Path, tmp_path: Path) -> None:
    """Nothing is copied where the trial's own folder is there."""
    own = root / "studies" / STUDY / "default" / "seed-3"
    own.mkdir(parents=True)
    (own / WEIGHTS).touch()
    assert fetch_trial(root, tracked(store, tmp_path)) == own.resolve()


def test_a_run_from_elsewhere_is_fetched_once(store: Store, root: Path, tmp_path: Path) -> None:
    """Recipe and weights lie as in a study, and nothing else remains; the second call reads nothing."""
    run_id = tracked(store, tmp_path)
    there = fetch_trial(root, run_id)
    assert there == (root / "fetched" / run_id / "default" / "seed-3").resolve()
    assert (there / WEIGHTS).read_text() == WEIGHTS
    assert (there.parents[1] / "resolved.yaml").read_text() == "resolved.yaml"
    assert [path.name for path in (root / "fetched").iterdir()] == [run_id]
    (there / WEIGHTS).write_text("kept")
    assert (fetch_trial(root, run_id) / WEIGHTS).read_text() == "kept"


def test_what_cannot_be_fetched(store: Store, root: Path, tmp_path: Path) -> None:
    """No run, a summary, a name that is a path, a trial that failed, and weights that are gone."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-L013"):
        fetch_trial(root, "0" * 32)
    for other in (
        runs.create_run(store, runs.NewRun(study=STUDY, kind="summary")),
        tracked(store, tmp_path, arm="../x"),
    ):
        with pytest.raises(UserError, check=lambda error: error.code == "MIM-L011"):
            fetch_trial(root, other)
    failed = runs.create_run(store, runs.NewRun(study=STUDY, arm="default", seed=0, params={}))
    runs.end_run(store, failed, "FAILED")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-L012"):
        fetch_trial(root, failed)
    without = tracked(store, tmp_path, weights=False)
    with pytest.raises(RunError, check=lambda error: error.code == "MIM-L014"):
        fetch_trial(root, without)


def recipe_from(origin: dict[str, str]) -> Recipe:
    """Return a recipe that begins from an origin inside a mixture."""
    part = {"covariance": {"type": "filters", "from": origin}}
    mixture = {"type": "mixture", "components": [part, {"covariance": "closed_form"}]}
    return load({"init": [{"id": "f", "match": {"kind": "conv"}, "covariance": mixture}]})


def test_a_recipe_knows_the_folder(store: Store, root: Path, tmp_path: Path) -> None:
    """Its text stays, so that a root that is moved changes no plan; a recipe without runs is not touched."""
    run_id = tracked(store, tmp_path)
    recipe = with_local_runs(recipe_from({"run": run_id}), root)
    assert recipe.run_folders == {run_id: fetch_trial(root, run_id)}
    assert resolved(recipe) == resolved(recipe_from({"run": run_id}))
    plain = recipe_from({"trial": str(tmp_path)})
    assert with_local_runs(plain, root) is plain


def test_a_moved_root_has_its_own_runs(store: Store, root: Path, tmp_path: Path) -> None:
    """Workers read the folder relative to the study; one that is gone is refused with the repair."""
    recipe = with_local_runs(recipe_from({"run": tracked(store, tmp_path)}), root)
    (run_id,) = recipe.run_folders
    study = root / "studies" / "recipe" / "1"
    write_recipe(study, recipe)
    write_run_folders(study, recipe)
    moved = root.rename(tmp_path / "moved").resolve()

    found = read_recipe(moved / "studies" / "recipe" / "1")
    assert found.run_folders == {run_id: moved / recipe.run_folders[run_id].relative_to(root.resolve())}
    assert all(folder.is_dir() for folder in found.run_folders.values())
    for lost in (recipe, recipe_from({"run": run_id})):
        consumer = Consumer(recipe=lost, arm=next(iter(lost.arms.values())), seed=0)
        with pytest.raises(UserError, check=lambda error: error.code == "MIM-S018"):
            find_sources(TrainedRef(run=run_id), consumer)


def test_every_wrong_run_is_told_at_its_place(store: Store, root: Path, tmp_path: Path) -> None:
    """Rules that share one have its mistake in common; the repair is in the hint."""
    right, wrong, failed = tracked(store, tmp_path), "0" * 32, tracked(store, tmp_path, arm="../x")
    rules = [
        {"id": "a", "match": {"depth": [0, 0.5]}, "covariance": {"type": "filters", "from": {"run": run}}}
        for run in (right, wrong, wrong, failed)
    ]
    arms = {f"arm-{number}": {"init": [rule]} for number, rule in enumerate(rules)}
    with pytest.raises(RecipeError) as caught:
        with_local_runs(load({"recipe": 1, "name": "wrong", "arms": arms}), root)
    places = [(issue.path[1], issue.path[-2:], issue.hint) for issue in caught.value.issues]
    hint = "give the id of a finished trial's run, 32 digits as `mimetic ui` shows them"
    assert places == [("arm-1", ("from", "run"), hint), ("arm-3", ("from", "run"), hint)]
    assert caught.value.issues[0].message.startswith(f"there is no run {wrong} in sqlite")


def test_looking_for_a_run_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was tracked there is no run, and nothing is left behind."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"nothing was tracked in .*mlflow\.db yet"):
        fetch_trial(tmp_path / "mlruns", "0" * 32)
    assert list(tmp_path.iterdir()) == []
