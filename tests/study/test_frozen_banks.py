"""Frozen filters of rewritten networks: the same bytes after training, however it was run."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mimetic.config.registry import registered
from mimetic.files import write_text
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.study.layout import Trial
from mimetic.study.planning.arms import plan_arms
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.train.checkpoint import WEIGHTS

KINDS = ["linear_combination", "shared_filters", "factorised"]


RESNET = {"model": {"type": "cifar_resnet", "depth": 8, "width": 8}, "expect": 7}
"""A network and the number of its convolutions."""


def recipe_of(kind: str, network: dict[str, Any] = RESNET, **train: Any) -> Recipe:
    """Return a recipe of one rewritten network, for two epochs."""
    return load(
        {
            "recipe": 1,
            "name": f"frozen-{kind.replace('_', '-')}",
            "model": network["model"],
            "surgery": [{"id": "s", "match": {"kind": "conv"}, "type": kind, "expect": network["expect"]}],
            "data": {"type": "digits", "train_size": 64, "test_size": 32},
            "train": {"epochs": 2, "batch_size": 32, **train},
        }
    )


def trained_and_begun(
    recipe: Recipe, folder: Path, *, stops: int = 0
) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Return the weights after training and at the start, and the names of the frozen ones.

    Training is stopped at its fifth question whether to stop, `stops` times, and continued each time.
    """
    write_text(folder / "resolved.yaml", resolved(recipe))
    trial, shelf = Trial(str(folder), "main", 0), TrialCache()
    for _ in range(stops):
        asked = count(1)
        assert run_trial(trial, shelf, lambda: "enough" if next(asked) == 5 else None) == "KILLED"  # noqa: B023
    assert run_trial(trial, shelf, lambda: None) == "FINISHED"
    arm = recipe.arms["main"]
    begun = TrialCache().network(arm, shelf.dataset(arm), seed=0).model.state_dict()
    plan = json.loads((trial.folder / "plan.json").read_text())
    frozen = {entry["parameter"] for entry in plan["entries"] if entry["frozen"]}
    return load_file(trial.folder / WEIGHTS), begun, frozen


@pytest.mark.parametrize("kind", KINDS)
def test_every_freezing_rewrite_is_here(kind: str) -> None:
    """A rewrite that freezes something must be tested below."""
    freezing = {name for name, spec in registered("surgery").items() if "freeze" in spec.model_fields}

    assert kind in freezing
    assert freezing == set(KINDS)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_stay(kind: str, precision: str, tmp_path: Path) -> None:
    """With weight decay and momentum, in full precision and under autocast; the rest learns."""
    optimizer = {"type": "adamw", "lr": 0.01, "weight_decay": 0.5}
    recipe = recipe_of(kind, optimizer=optimizer, precision=precision)
    after, before, frozen = trained_and_begun(recipe, tmp_path)
    weights = {name: tensor for name, tensor in after.items() if name in before}

    assert frozen
    for name in frozen:
        assert torch.equal(before[name], weights[name])
    learned = [name for name in weights if name not in frozen and weights[name].is_floating_point()]
    assert [n for n in learned if torch.equal(before[n], weights[n]) and "bank" not in n] == []


def test_rules_begin_and_free_the_filters() -> None:
    """`freeze: false` leaves the filters to learn; a rule may begin them, and freeze them itself."""
    recipe = load(
        {
            "recipe": 1,
            "model": {"type": "cifar_resnet", "depth": 8, "width": 4},
            "surgery": [{"id": "s", "match": {"kind": "conv"}, "type": "linear_combination", "expansion": 2}],
            "data": "digits",
            "train": {"epochs": 1},
            "arms": {
                "frozen": {"init": [{"id": "f", "match": {"kind": "conv"}, "covariance": "closed_form"}]},
                "learned": {"surgery": [{"id": "s", "freeze": False}]},
                "by-rule": {
                    "extends": "learned",
                    "init": [{"id": "f", "match": {"kind": "conv"}, "init": "impulse", "freeze": True}],
                },
            },
        }
    )
    plans = plan_arms(recipe)

    assert {name: len(plan.frozen) for name, plan in plans.items()} == {
        "frozen": 7,
        "learned": 0,
        "by-rule": 7,
    }
    assert plans["frozen"].entry("conv1.filters.weight").arguments["covariance"]["type"] == "closed_form"
    assert len({plan.hash for plan in plans.values()}) == 3


@pytest.mark.slow
def test_bytes_stay_when_compiled(tmp_path: Path) -> None:
    """`torch.compile` sees the frozen filters as constants that stay."""
    small = {"model": {"type": "plain_cnn", "widths": [4, 4]}, "expect": 2}
    after, before, frozen = trained_and_begun(recipe_of("linear_combination", small, compile=True), tmp_path)

    assert len(frozen) == 2
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def test_bytes_stay_over_a_resume(tmp_path: Path) -> None:
    """A trial that was stopped and continued ends with the frozen bytes it began with, and all others."""
    recipe = recipe_of("linear_combination")
    whole, before, frozen = trained_and_begun(recipe, tmp_path / "whole")
    resumed, _, _ = trained_and_begun(recipe, tmp_path / "stopped", stops=1)

    assert all(torch.equal(before[name], resumed[name]) for name in frozen)
    assert all(torch.equal(whole[name], resumed[name]) for name in before)
