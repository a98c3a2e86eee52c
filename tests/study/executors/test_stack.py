"""Stacked trials: the same figures as one after another, and a stated reason where they are not stacked."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mimetic.config.errors import RecipeError
from mimetic.journal import Event, last_metrics, read_journal
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.study.executors.stack import run_stack, stacks
from mimetic.study.layout import Trial, read_load, write_load
from mimetic.study.opening import start
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.trials.shelf import TrialCache
from mimetic.study.trials.trial import run_trial

MODELS: dict[str, dict[str, Any]] = {
    "convmixer": {"type": "convmixer", "dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 2},
    "plain": {"type": "plain_cnn", "widths": [6, 8], "kernel_size": 3, "stride": 2, "pool": True},
}
TRAIN: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 32,
    "device": "cpu",
    "optimizer": {"type": "adamw", "lr": 0.01, "decay": "weights"},
    "schedule": {"type": "one_cycle"},
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "mixup": 0.2,
}
WIDE = {"id": "wide", "match": {"kind": "conv"}, "init": {"type": "normal", "std": 0.5}}

DROPPING: dict[str, Any] = {
    "model": {"type": "timm", "name": "test_resnet", "args": {"drop_rate": 0.1}},
    "data": {"type": "synthetic", "shape": [3, 32], "count": 4},
    "train": {"epochs": 0},
}


def recipe(*, train: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    """Return two arms of a tiny study on two seeds."""
    data = {"type": "synthetic", "shape": [3, 8], "count": 128, "augment": [{"type": "flip"}]}
    plain = {
        "recipe": 1,
        "name": "tiny",
        "model": MODELS["convmixer"],
        "data": data,
        "train": {**TRAIN, **({} if train is None else train)},
        "seeds": 2,
        "arms": {"default": {}, "wide": {"init": [WIDE]}},
    }
    return load({**plain, **parts})


def opened(root: Path, found: Recipe) -> list[Trial]:
    """Return the trials of a new study."""
    folder = start(root, found, plan_arms(found), open_data(found))
    return [Trial(str(folder), arm, seed, "cpu") for seed in found.seeds for arm in found.arms]


def journals(trials: list[Trial]) -> list[list[Event]]:
    """Return the events of each trial."""
    return [read_journal(trial.journal) for trial in trials]


def notes(events: list[Event]) -> list[str]:
    """Return what was noted."""
    return [event["text"] for event in events if event["event"] == "note"]


def never() -> None:
    """Let training go on."""


def after(count: int) -> Callable[[], str | None]:
    """Return what stops training when it is asked for the n-th time."""
    left = [count]

    def stop() -> str | None:
        left[0] -= 1
        return "enough" if left[0] <= 0 else None

    return stop


@pytest.mark.parametrize("model", [pytest.param("convmixer", marks=pytest.mark.slow), "plain"])
def test_a_stack_trains_what_a_queue_trains(model: str, tmp_path: Path) -> None:
    """Figures and weights of each trial are those of the trial by itself, but for rounding."""
    found = recipe(model=MODELS[model])
    queue, stack = opened(tmp_path / "queue", found), opened(tmp_path / "stack", found)
    shelf = TrialCache()

    alone = [run_trial(trial, shelf, never) for trial in queue]
    together = run_stack(stack, TrialCache(), never)

    assert (alone, together) == (["FINISHED"] * 4, ["FINISHED"] * 4)
    for one, other in zip(queue, stack, strict=True):
        events, stacked = read_journal(one.journal), read_journal(other.journal)
        assert (next(e for e in stacked if e["event"] == "start")["stacked"], notes(stacked)) == (4, [])
        before, after_ = last_metrics(events), last_metrics(stacked)
        assert before.keys() == after_.keys()
        for name in ("train/loss", "test/loss", "lr"):
            assert after_[name] == pytest.approx(before[name], abs=2e-3)
        assert after_["test/acc"] == pytest.approx(before["test/acc"], abs=0.04)  # one image of 32
        mine, theirs = (load_file(t.folder / "weights.safetensors") for t in (one, other))
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(theirs[name], tensor, atol=5e-3, rtol=1e-2)


@pytest.mark.slow
def test_one_that_diverges_harms_no_other(tmp_path: Path) -> None:
    """It is FAILED with the reason; the others end with the figures they have without it."""
    blown = {"id": "blown", "match": {"kind": "conv"}, "init": {"type": "normal", "std": 1e20}}
    found = recipe(
        model={**MODELS["plain"], "norm": "none"},
        train={"optimizer": {"type": "sgd", "lr": 0.01}, "clip_norm": None},
        arms={"default": {}, "blown": {"init": [blown]}, "wide": {"init": [WIDE]}},
        seeds=1,
    )
    first, second, third = opened(tmp_path / "a", found)
    calm = opened(tmp_path / "b", found)[::2]

    assert run_stack([first, second, third], TrialCache(), never) == ["FINISHED", "FAILED", "FINISHED"]
    assert run_stack(calm, TrialCache(), never) == ["FINISHED", "FINISHED"]

    end = read_journal(second.journal)[-1]
    assert "training diverged" in end["reason"]
    for one, other in zip((first, third), calm, strict=True):
        mine, theirs = (last_metrics(read_journal(trial.journal)) for trial in (one, other))
        assert mine["test/loss"] == pytest.approx(theirs["test/loss"], rel=1e-4)
        assert math.isfinite(mine["train/loss"])


@pytest.mark.slow
def test_a_stopped_stack_goes_on_by_itself(tmp_path: Path) -> None:
    """All trials are KILLED with their state; each goes on alone, says why, and ends as if never stopped."""
    found = recipe()
    straight, cut = opened(tmp_path / "straight", found), opened(tmp_path / "cut", found)
    run_stack(straight, TrialCache(), never)

    assert run_stack(cut, TrialCache(), after(15)) == ["KILLED"] * 4
    assert {events[-1]["reason"] for events in journals(cut)} == {"enough"}
    assert all((trial.folder / "state.safetensors").is_file() for trial in cut)
    assert run_stack(cut, TrialCache(), never) == ["FINISHED"] * 4

    for one, events in zip(straight, journals(cut), strict=True):
        assert notes(events) == ["trained by itself, not stacked: a trial goes on at a checkpoint"]
        expected = last_metrics(read_journal(one.journal))
        assert last_metrics(events)["test/loss"] == pytest.approx(expected["test/loss"], abs=2e-3)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"arms": {"default": {}, "held": {"init": [{**WIDE, "freeze": True}]}}}, "what is frozen"),
        pytest.param(
            {"train": {"epochs": 1, "compile": True}}, "`train.compile` is on", marks=pytest.mark.slow
        ),
        pytest.param(DROPPING, "random", marks=pytest.mark.slow),
    ],
    ids=["frozen", "compile", "dropout"],
)
def test_what_cannot_be_stacked_says_why(
    parts: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such trials are trained one after another, and each journal has the reason."""
    monkeypatch.setattr(torch, "compile", lambda model: model)
    if "model" in parts:
        pytest.importorskip("timm")
        parts = {
            "data": {"type": "synthetic", "shape": [3, 32], "count": 4},
            "train": {"epochs": 0},
            **parts,
        }
    trials = opened(tmp_path, recipe(**parts))[:2]

    assert run_stack(trials, TrialCache(), never) == ["FINISHED", "FINISHED"]
    for events in journals(trials):
        (note,) = notes(events)
        assert note.startswith("trained by itself, not stacked: ")
        assert reason in note


def test_trials_of_one_model_and_training_are_put_together() -> None:
    """Arms that differ in their beginnings share a stack, up to its size; another training is another one."""
    arms = {"default": {}, "wide": {"init": [WIDE]}, "long": {"train": {"epochs": 3}}}
    found = recipe(arms=arms, seeds=3)
    trials = [Trial("study", arm, seed) for seed in found.seeds for arm in found.arms]

    loads = stacks(found, trials, size=4)

    assert [[(t.arm, t.seed) for t in load] for load in loads] == [
        [("default", 0), ("wide", 0), ("default", 1), ("wide", 1)],
        [("long", 0), ("long", 1), ("long", 2)],
        [("default", 2), ("wide", 2)],
    ]
    assert [read_load(write_load(load)) for load in loads] == loads
    assert read_load(write_load(loads[1][:1])) == loads[1][:1]


def test_a_stack_of_one_is_refused() -> None:
    """The executor wants to know how many."""
    with pytest.raises(RecipeError, match="stack of one"):
        recipe(study={"executor": "stacked"})
