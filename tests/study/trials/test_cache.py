"""What a process reuses between trials: a model reinitialized in place gives the bytes of a new process."""

import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from mimetic.config.address import ConfigPath
from mimetic.recipe.load import load
from mimetic.recipe.saved import read_recipe, write_recipe
from mimetic.study.layout import Trial
from mimetic.study.trials import cache as caching
from mimetic.study.trials.cache import TracedNetwork, TrialCache
from mimetic.study.trials.trial import run_trial

from ..conftest import PLAIN, filters

YAML_MACHINERY = (
    "mimetic.recipe.load",
    "mimetic.recipe.reading",
    "mimetic.recipe.dump",
    "mimetic.config.text.composer",
    "mimetic.config.text.scalars",
    "mimetic.config.text.yaml_source",
)

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
    write_recipe(tmp_path, load(TINY))
    return tmp_path


def network(cache: TrialCache, study: Path, arm: str, seed: int) -> TracedNetwork:
    """Return the network of a trial."""
    chosen = cache.recipe(str(study)).arms[arm]
    return cache.network(chosen, cache.dataset(chosen), seed=seed, at=ConfigPath(name=arm))


def places(made: TracedNetwork) -> list[int]:
    """Return where the tensors of a model lie."""
    return [tensor.data_ptr() for tensor in made.model.state_dict().values()]


def test_the_model_is_begun_anew_in_place(study: Path) -> None:
    """The next seed gets the same tensors, with every value of a new model, whatever training left there."""
    cache = TrialCache()
    first = network(cache, study, "default", 0)
    before = places(first)
    with torch.no_grad():
        for tensor in first.model.state_dict().values():
            tensor.fill_(7)
    for parameter in first.model.parameters():
        parameter.requires_grad_(requires_grad=False)
    again, new = network(cache, study, "frozen", 1), network(TrialCache(), study, "frozen", 1)

    assert places(again) == before
    assert again.model.training == new.model.training
    assert all(parameter.requires_grad for parameter in again.model.parameters())
    expected, actual = new.model.state_dict(), again.model.state_dict()
    assert list(expected) == list(actual)
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, actual[name])] == []


def test_another_model_or_training_is_made_new(study: Path) -> None:
    """A model of another shape, and one that is trained otherwise, do not share what was compiled."""
    cache = TrialCache()
    first = network(cache, study, "default", 0)

    assert network(cache, study, "other", 0).model is not first.model
    assert network(cache, study, "default", 0).model is not first.model  # one at a time is kept
    last = network(cache, study, "default", 1)
    assert network(cache, study, "longer", 0).model is not last.model


def test_a_model_that_surgery_changed_is_made_new(study: Path) -> None:
    """It is no model of the recipe's section any more, neither for itself nor for the arm it grew from."""
    cache = TrialCache()
    first = network(cache, study, "default", 0)
    rewritten = network(cache, study, "rewritten", 0)

    assert rewritten.model is not first.model
    assert network(cache, study, "rewritten", 1).model is not rewritten.model
    plain = network(cache, study, "default", 0)
    assert list(plain.model.state_dict()) == list(first.model.state_dict())


def test_an_architecture_is_built_and_traced_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the arms and seeds; what surgery changes is built for each trial, and traced once."""
    calls: Counter[str] = Counter()

    def count(name: str) -> None:
        function = getattr(caching, name)
        monkeypatch.setattr(
            caching, name, lambda *a, **options: (calls.update([name]), function(*a, **options))[1]
        )

    count("build_network")
    count("find_sites")
    cache = TrialCache()
    for seed in range(2):
        for arm in ("default", "frozen"):
            assert len(network(cache, study, arm, seed).graph.sites) > 0
    assert calls == {"build_network": 1, "find_sites": 1}
    for seed in range(2):
        network(cache, study, "rewritten", seed)
    assert calls == {"build_network": 3, "find_sites": 2}


def test_a_saved_recipe_is_the_same_recipe(study: Path) -> None:
    """From the JSON, and from the YAML where there is no JSON."""
    recipe = load(TINY)
    assert read_recipe(study) == recipe
    (study / "recipe.json").unlink()
    assert read_recipe(study) == recipe


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_a_worker_does_not_read_yaml(study: Path) -> None:
    """It validates the arm as data; the machinery of recipes is not even imported."""
    code = (
        "import sys; from mimetic.study.executors.worker import work; work(sys.stdin, sys.stdout); "
        "sys.stderr.write(' '.join(name for name in sys.modules if name.startswith('mimetic.')))"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code],
        input=f"{Trial(str(study), 'frozen', 0).to_json()}\nend\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert worker.stdout == "FINISHED\n"
    modules = set(worker.stderr.split())
    assert "mimetic.recipe.recipe" in modules
    assert not [name for name in modules if name.startswith(YAML_MACHINERY)]


def test_data_and_recipe_are_read_once(study: Path) -> None:
    """Both are handed out again."""
    cache = TrialCache()
    recipe = cache.recipe(str(study))

    assert cache.recipe(str(study)) is recipe
    assert cache.dataset(recipe.arms["default"]) is cache.dataset(recipe.arms["frozen"])


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "warm_processes")
def test_the_second_trial_ends_as_in_a_process_of_its_own(study: Path, tmp_path: Path) -> None:
    """Final weights, bit for bit, after another seed and after another arm."""
    cache = TrialCache()
    for trial in (Trial(str(study), "default", 0), last := Trial(str(study), "frozen", 1)):
        assert run_trial(trial, cache, lambda: None) == "FINISHED"
    alone = tmp_path / "alone"
    alone.mkdir()
    write_recipe(alone, load(TINY))
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
