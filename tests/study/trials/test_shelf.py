"""What a worker keeps between trials: a model begun anew in place gives the bytes of a new process."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from mimetic.config.address import ConfigPath
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load
from mimetic.study.layout import Trial
from mimetic.study.trials.shelf import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic.surgery.network import Network

from ..conftest import PLAIN, filters

SURGERY = {"id": "s", "match": {"kind": "conv"}, "type": "linear_combination"}

TINY: dict[str, Any] = {
    **PLAIN,
    "train": {"epochs": 2, "batch_size": 32},
    "arms": {
        "default": {},
        "frozen": filters("closed_form", freeze=True),
        "rewritten": {"surgery": [SURGERY]},
        "longer": {"train": {"epochs": 3}},
        "other": {"model": {**PLAIN["model"], "dim": 4}},
    },
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return the folder of a study that was not begun."""
    (tmp_path / "resolved.yaml").write_text(resolved(load(TINY)))
    return tmp_path


def network(shelf: TrialCache, study: Path, arm: str, seed: int) -> Network:
    """Return what the shelf hands out for a trial."""
    chosen = shelf.recipe(str(study)).arms[arm]
    return shelf.network(chosen, shelf.dataset(chosen), seed=seed, at=ConfigPath(name=arm))


def places(made: Network) -> list[int]:
    """Return where the tensors of a model lie."""
    return [tensor.data_ptr() for tensor in made.model.state_dict().values()]


def test_the_model_is_begun_anew_in_place(study: Path) -> None:
    """The next seed gets the same tensors, with every value of a new model, whatever training left there."""
    shelf = TrialCache()
    first = network(shelf, study, "default", 0)
    before = places(first)
    with torch.no_grad():
        for tensor in first.model.state_dict().values():
            tensor.fill_(7)
    for parameter in first.model.parameters():
        parameter.requires_grad_(requires_grad=False)
    again, new = network(shelf, study, "frozen", 1), network(TrialCache(), study, "frozen", 1)

    assert places(again) == before
    assert again.model.training == new.model.training
    assert all(parameter.requires_grad for parameter in again.model.parameters())
    expected, actual = new.model.state_dict(), again.model.state_dict()
    assert list(expected) == list(actual)
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, actual[name])] == []


def test_another_model_or_training_is_made_new(study: Path) -> None:
    """A model of another shape, and one that is trained otherwise, do not share what was compiled."""
    shelf = TrialCache()
    first = network(shelf, study, "default", 0)

    assert network(shelf, study, "other", 0).model is not first.model
    assert network(shelf, study, "default", 0).model is not first.model  # one at a time is kept
    last = network(shelf, study, "default", 1)
    assert network(shelf, study, "longer", 0).model is not last.model


def test_a_model_that_surgery_changed_is_made_new(study: Path) -> None:
    """It is no model of the recipe's section any more, neither for itself nor for the arm it grew from."""
    shelf = TrialCache()
    first = network(shelf, study, "default", 0)
    rewritten = network(shelf, study, "rewritten", 0)

    assert rewritten.model is not first.model
    assert network(shelf, study, "rewritten", 1).model is not rewritten.model
    plain = network(shelf, study, "default", 0)
    assert list(plain.model.state_dict()) == list(first.model.state_dict())


def test_data_and_recipe_are_read_once(study: Path) -> None:
    """Both are handed out again."""
    shelf = TrialCache()
    recipe = shelf.recipe(str(study))

    assert shelf.recipe(str(study)) is recipe
    assert shelf.dataset(recipe.arms["default"]) is shelf.dataset(recipe.arms["frozen"])


@pytest.mark.slow
def test_the_second_trial_ends_as_in_a_process_of_its_own(study: Path, tmp_path: Path) -> None:
    """Final weights, bit for bit, after another seed and after another arm."""
    shelf = TrialCache()
    for trial in (Trial(str(study), "default", 0), last := Trial(str(study), "frozen", 1)):
        assert run_trial(trial, shelf, lambda: None) == "FINISHED"
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "resolved.yaml").write_text((study / "resolved.yaml").read_text())
    same = Trial(str(alone), "frozen", 1)
    line = f"{same.to_json()}\nend\n"
    worker = subprocess.run(
        [sys.executable, "-m", "mimetic.study.executors.worker"],
        input=line,
        capture_output=True,
        text=True,
        check=True,
    )

    assert worker.stdout == "FINISHED\n"
    digests = {sha256((one.folder / "weights.safetensors").read_bytes()).hexdigest() for one in (last, same)}
    assert len(digests) == 1
