"""Runs: flat, with what MLflow's pages show, and never left dangling."""

import subprocess
import sys

import pytest

from mimetic.tracking import log, runs
from mimetic.tracking.store import Store

STUDY = "20261121-021500"


def trial(store: Store, arm: str = "closed-form", seed: int = 0, **more: object) -> str:
    """Create a run."""
    return runs.create_run(store, runs.NewRun(study=STUDY, arm=arm, seed=seed, **({"params": {}} | more)))


def torn_trial(store: Store, **fields: object) -> str:
    """Create a run whose params were not logged, and many of them are."""
    params = {f"p{i}": i for i in range(205)}
    return runs.start_run(store, runs.NewRun(study=STUDY, arm="a", params=params, **fields)).id


def test_a_trial_run_carries_arm_seed_and_settings(store: Store) -> None:
    """Params are flat strings; the interface groups by the param `arm`."""
    settings = {"model": {"type": "convmixer", "dim": 64}, "train": {"compile": False, "betas": (0.9, 0.99)}}

    run = store.client.get_run(trial(store, params=settings))

    assert run.info.run_name == "closed-form · seed 0"
    assert run.info.status == "RUNNING"
    assert run.data.params == {
        "arm": "closed-form",
        "seed": "0",
        "model.type": "convmixer",
        "model.dim": "64",
        "train.compile": "false",
        "train.betas": "[0.9, 0.99]",
    }


def test_a_run_says_where_it_comes_from(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipe, commit and user fill MLflow's own columns."""
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    source = {"recipe": "recipes/quickstart.yaml", "commit": "0b1490e"}

    run_id = trial(store, **source, note="One trial.", tags={"mimetic.torch": "2.15"})
    tags = store.client.get_run(run_id).data.tags

    assert tags["mlflow.source.name"] == "recipes/quickstart.yaml"
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.source.git.commit"] == "0b1490e"
    assert tags["mlflow.user"] == "ada"
    assert tags["mlflow.note.content"] == "One trial."
    assert (tags["mimetic.study"], tags["mimetic.kind"]) == (STUDY, "trial")
    assert tags["mimetic.torch"] == "2.15"


def test_long_values_are_cut_and_many_are_sent_in_batches(store: Store) -> None:
    """MLflow takes 6000 characters a param, 8000 a tag, and 100 params a call."""
    params = {f"p{i}": i for i in range(205)} | {"long": "x" * 7000}

    run = store.client.get_run(trial(store, params=params, tags={"long": "y" * 9000}))

    assert len(run.data.params) == 208
    assert run.data.params["long"] == "x" * 5999 + "…"
    assert run.data.tags["long"] == "y" * 7999 + "…"


def test_the_runs_of_a_study_are_found_again(store: Store) -> None:
    """A study that is resumed takes up its own runs, not those of another."""
    mine = {("default", 0): trial(store, "default", 0), ("default", 1): trial(store, "default", 1)}
    summary = runs.create_run(store, runs.NewRun(study=STUDY, params={"arms": 1}, kind="summary"))
    runs.create_run(store, runs.NewRun(study="20261122-000000", arm="default", seed=0, params={}))

    assert runs.find_runs(store, STUDY)[:2] == (mine, summary)
    assert runs.find_runs(store, "20200101-000000")[:2] == ({}, None)


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_with_its_reason(store: Store, status: runs.Status) -> None:
    """The reason is a tag."""
    run_id = trial(store)

    runs.end_run(store, run_id, status, reason="out of memory")

    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["mimetic.reason"]) == (status, "out of memory")
    assert run.info.end_time is not None


def test_a_resumed_study_claims_what_did_not_finish(store: Store) -> None:
    """A finished trial stays finished; a killed one runs again, and so does the summary."""
    finished, killed = trial(store, seed=0), trial(store, seed=1)
    summary = runs.create_run(store, runs.NewRun(study=STUDY, kind="summary"))
    runs.end_run(store, finished, "FINISHED")
    runs.end_run(store, killed, "KILLED")
    runs.end_run(store, summary, "FINISHED")

    for run_id in (finished, killed, summary):
        runs.claim(store, run_id)

    statuses = [store.client.get_run(run_id).info.status for run_id in (finished, killed, summary)]
    assert statuses == ["FINISHED", "RUNNING", "RUNNING"]


def test_runs_of_dead_processes_are_ended(store: Store) -> None:
    """`kill -9` on a coordinator leaves runs open; the next start ends them, and only them."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pid = process.pid
    dead, alive, elsewhere = trial(store, seed=0), trial(store, seed=1), trial(store, seed=2)
    for run_id in (dead, elsewhere):
        log.set_tags(store, run_id, {"mimetic.pid": str(pid), "mimetic.process": "1"})
    log.set_tags(store, elsewhere, {"mimetic.host": "another-host"})

    assert runs.reconcile(store) == ["closed-form · seed 0"]
    statuses = [store.client.get_run(run_id).info.status for run_id in (dead, alive, elsewhere)]
    assert statuses == ["KILLED", "RUNNING", "RUNNING"]


def test_runs_torn_while_they_were_made_are_removed(store: Store) -> None:
    """Those of a trial, whose study is locked; of a stage, which others share, if their process is gone."""
    torn = torn_trial(store, seed=0)
    whole = trial(store, seed=1)
    left, making = (torn_trial(store, seed=seed, kind="stage") for seed in (2, 3))
    log.set_tags(store, left, {"mimetic.process": "1"})

    runs.delete_incomplete_runs(store, STUDY)

    stages = {
        run_id: store.client.get_run(run_id).info.lifecycle_stage for run_id in (torn, whole, left, making)
    }
    assert stages == {torn: "deleted", whole: "active", left: "deleted", making: "active"}


def test_runs_follow_a_study_that_grows(store: Store) -> None:
    """What left it is `former`, the summary too, and what returns is a trial again."""
    contents = {("a", 0): "x", ("a", 1): "x", ("b", 0): "y"}
    made = {
        (arm, seed): trial(store, arm, seed, tags={runs.CONTENT_TAG: content})
        for (arm, seed), content in contents.items()
    }
    summary = runs.create_run(store, runs.NewRun(study=STUDY, kind="summary"))

    runs.follow_growth(store, STUDY, contents | {("c", 0): "z"}, colors={"a": "#0072b2", "b": "#D55E00"})
    assert runs.find_runs(store, STUDY)[:2] == (made, summary)

    runs.follow_growth(store, STUDY, {("a", 0): "x", ("a", 1): "longer"}, colors={"a": "#009E73"})
    assert runs.find_runs(store, STUDY)[:2] == ({("a", 0): made["a", 0]}, None)
    runs.delete_incomplete_runs(store, STUDY)
    assert store.client.get_run(summary).info.lifecycle_stage == "active"

    runs.follow_growth(store, STUDY, contents, colors={})
    assert runs.find_runs(store, STUDY)[:2] == (made, None)
    colors = {key: store.client.get_run(run).data.tags[runs.COLOR_TAG] for key, run in made.items()}
    assert colors == {("a", 0): "#009E73", ("a", 1): "#009E73", ("b", 0): "#D55E00"}
