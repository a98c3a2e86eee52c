"""A model that computes its weights, and updates a parameter which it froze itself, trains."""

import sys
from pathlib import Path

import pytest

from mimetic.covariance.ansatz import MEASURES
from mimetic.journal import history, read_journal
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import loads
from mimetic.study.layout import Trial
from mimetic.study.trials.pictures import filter_pictures
from mimetic.study.trials.trial import TrialCache, run_trial

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.conv = wrap(nn.Conv2d(1, 4, 3))
        self.other = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 10)
        self.average = nn.Parameter(torch.zeros(4), requires_grad=False)

    def forward(self, x):
        x = self.other(torch.relu(self.conv(x))).mean((2, 3))
        if self.training:
            with torch.no_grad():
                self.average.lerp_(x.mean(0), 0.1)
        return self.head(x)

def model(kind):
    torch.manual_seed(0)
    return Net(getattr(nn.utils.parametrizations, kind))
"""
TEXT = """
recipe: 1
name: computed
model: {{type: python, call: 'computed_weights:model', args: {{kind: {kind}}}}}
data: {{type: digits, train_size: 32, test_size: 16}}
train: {{epochs: 1, batch_size: 16, device: cpu}}
measure: {{ansatz: {{images: 4}}}}
init:
  - {{id: conv, match: conv, init: kaiming_normal}}
"""
FROZEN = "  - {id: average, match: {layer: '.*', param: average}, init: zeros, freeze: true}\n"


def run(folder: Path, kind: str, rules: str = "") -> Trial:
    """Train a trial of the module in the folder."""
    (folder / "computed_weights.py").write_text(SOURCE)
    (folder / "resolved.yaml").write_text(resolved(loads(TEXT.format(kind=kind) + rules)))
    trial = Trial(str(folder), "main", 0, "cpu", allow_code=True)
    run_trial(trial, TrialCache(), lambda: None)
    return trial


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder from which a module can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "computed_weights", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("mimetic.study.trials.trial.filter_pictures", filter_pictures)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_pictures_and_measurements_are_of_the_weights_that_are_used(folder: Path, kind: str) -> None:
    """And a moving average, which the model froze and updates, is none of the recipe's business."""
    trial = run(folder, kind)
    events = read_journal(trial.journal)
    assert events[-1]["status"] == "FINISHED", events[-1]
    pictures = {event["file"] for event in events if event.get("kind") == "picture"}
    assert {f"pictures/filters-{moment}.png" for moment in ("start", "end")} <= pictures
    curves = history(events)
    assert {f"ansatz/conv/{measure}" for measure in MEASURES} <= set(curves)
    assert curves["ansatz/conv/rho_init"][0] == pytest.approx(1.0)


def test_what_the_recipe_freezes_must_not_change(folder: Path) -> None:
    """The same average, frozen by a rule."""
    (*_, end) = read_journal(run(folder, "weight_norm", FROZEN).journal)
    assert end["status"] == "FAILED"
    assert "frozen parameters changed during training: average;" in end["reason"]
