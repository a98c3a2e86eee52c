"""`measure:` in a recipe: metrics and a picture of a trial, the same whether it was killed or not."""

from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.covariance.ansatz import MEASURES
from mimetic.journal import history, read_journal
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load, loads
from mimetic.study.layout import Trial
from mimetic.study.planning.arms import plan_arms
from mimetic.study.trials.trial import TrialCache, run_trial

TEXT = """
recipe: 1
name: watched
model: {type: convmixer, dim: 6, depth: 2, kernel_size: 3, patch_size: 2}
data: {type: digits, train_size: 64, test_size: 16}
train: {epochs: 3, batch_size: 32, device: cpu}
measure: {ansatz: {every: 2, images: 8, layers: {kind: depthwise_conv}}}
arms:
  main: {}
  blind: {measure: null}
"""


def trained(folder: Path, arm: str = "main", stops: tuple[int, ...] = ()) -> dict[str, dict[int, float]]:
    """Train a trial, stopped after so many steps again and again, and return its curves."""
    folder.mkdir(exist_ok=True)
    (folder / "resolved.yaml").write_text(resolved(loads(TEXT)))
    trial = Trial(str(folder), arm, 0, "cpu")
    for steps in stops:
        left = iter(range(steps))
        assert run_trial(
            trial, TrialCache(), lambda left=left: None if next(left, None) is not None else "x"
        ) == ("KILLED")
    assert run_trial(trial, TrialCache(), lambda: None) == "FINISHED"
    return curves_of(trial)


def curves_of(trial: Trial) -> dict[str, dict[int, float]]:
    """Return the curves of a trial, without times."""
    timed = ("images_per_second", "epoch_seconds")
    curves = history(read_journal(trial.journal))
    return {name: curve for name, curve in curves.items() if name not in timed}


@pytest.fixture(scope="module")
def folder(build_once: Any) -> Path:
    """Return the folder of a study with one trial, never stopped."""
    return build_once("observed", trained)


@pytest.fixture(scope="module")
def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Return the curves of its trial."""
    return curves_of(Trial(str(folder), "main", 0, "cpu"))


def test_metrics_and_picture(folder: Path, curves: dict[str, dict[int, float]]) -> None:
    """Before training, every so many epochs, and at the end; of the layers asked for."""
    names = {name for name in curves if name.startswith("ansatz/")}
    layers = ("blocks.0.spatial", "blocks.1.spatial")
    assert names == {"ansatz/rho", *(f"ansatz/{layer}/{m}" for layer in layers for m in MEASURES)}
    assert list(curves["ansatz/blocks.0.spatial/rho"]) == [0, 2, 3]
    assert list(curves["ansatz/blocks.0.spatial/rho_change"]) == [2, 3]
    assert curves["ansatz/blocks.0.spatial/rho_init"][0] == pytest.approx(1.0)
    events = read_journal(folder / "main" / "seed-0" / "journal.jsonl")
    pictures = {event["file"] for event in events if event.get("kind") == "picture"}
    assert "pictures/ansatz-end.png" in pictures
    assert (folder / "main" / "seed-0" / "pictures" / "ansatz-end.png").read_bytes()[1:4] == b"PNG"


def test_killed_and_resumed_gives_the_same_numbers(
    curves: dict[str, dict[int, float]], tmp_path: Path
) -> None:
    """To the bit: the start that later weights are compared with is planned again."""
    assert curves == trained(tmp_path / "killed", stops=(5, 4))


def test_an_arm_that_is_not_measured_learns_the_same(
    curves: dict[str, dict[int, float]], tmp_path: Path
) -> None:
    """Measuring is looking on."""
    plain = {name: curve for name, curve in curves.items() if not name.startswith("ansatz/")}
    assert plain == trained(tmp_path / "blind", "blind")


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        (
            {"measure": {"ansatz": {"layers": "head"}}},
            "MIM-Y142",
            "it can be measured at `stem.conv`, `blocks.0.spatial`",
        ),
        ({"model": {"type": "python", "call": "torch.nn:Identity"}}, "MIM-Y141", "remove it"),
        ({"data": "copying", "model": {"type": "mamba"}}, "MIM-Y140", "remove it"),
    ],
)
def test_measurements_without_a_layer_are_refused_in_advance(
    change: dict[str, Any], code: str, hint: str
) -> None:
    """With the layers that can be measured."""
    base = {
        "recipe": 1,
        "name": "x",
        "model": {"type": "convmixer", "dim": 6, "depth": 2, "patch_size": 2},
        "data": "digits",
        "train": {"epochs": 1},
        "measure": {"ansatz": {}},
    }
    with pytest.raises(RecipeError) as caught:
        plan_arms(load({**base, **change}), allow_code=True)
    (issue,) = caught.value.issues
    assert issue.code == code
    assert str(issue.hint).startswith(hint)
