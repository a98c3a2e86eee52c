"""The plan says where `init: default` draws another distribution than the model's own initialization."""

from pathlib import Path

import pytest
import torch
from torch import nn

import mimetic
from mimetic.plans.plan import Plan
from mimetic.recipe.load import load
from mimetic.study.planning.arms import plan_recipe
from tests.plans.test_every_module import MADE

EVERYTHING = {"recipe": 1, "init": [{"id": "r", "match": {"layer": ".*", "param": ".*"}, "init": "default"}]}


def noted(plan: Plan) -> dict[str, str]:
    """Return what is said of the model's own values, by parameter."""
    found = {
        e.parameter: [n for n in e.notes if n.startswith("the model's own values")] for e in plan.entries
    }
    return {name: notes[0] for name, notes in found.items() if notes}


@pytest.mark.parametrize("cls", sorted(MADE))
@pytest.mark.filterwarnings("ignore")
def test_a_class_of_torch_has_its_own_distribution(cls: str) -> None:
    """Except attention, which sets the bias of its projection to zero, and what contains it."""
    torch.manual_seed(0)
    found = noted(mimetic.plan(nn.Sequential(MADE[cls][0]()), EVERYTHING))
    if cls == "Transformer":  # draws all matrices by Xavier's rule
        assert "0.encoder.layers.0.linear2.weight" in found
    else:
        assert {name.rpartition("out_proj.")[2] for name in found} <= {"bias"}
        assert bool(found) == ("Transformer" in cls or cls == "MultiheadAttention")


def test_a_model_that_initializes_itself() -> None:
    """Twice as large, constant, or shifted; nothing is said of other rules, or of a model without values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[0].bias.zero_()
        model[1].weight.zero_()
        model[2].weight.add_(100)
    rest = "; `init: keep` leaves those"
    assert noted(mimetic.plan(model, EVERYTHING)) == {
        "0.weight": f"the model's own values have 2 times the std of the default{rest}",
        "0.bias": f"the model's own values are all 0{rest}",
        "1.weight": f"the model's own values are all 0{rest}",
        "2.weight": f"the model's own values have 0.99 times the std of the default, with mean 1e+02{rest}",
    }
    plan = mimetic.plan(model, EVERYTHING)
    assert plan.hash == mimetic.initialize(model, EVERYTHING).hash
    assert not noted(mimetic.plan(model, EVERYTHING))
    assert not noted(mimetic.plan(model.to("meta"), EVERYTHING))


def test_the_command_compares_as_well(tmp_path: Path) -> None:
    """It builds the model with values only for that."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "recipe: 1\nname: own\nmodel: {type: timm, name: test_vit}\n"
        "init: [{id: all, match: {kind: linear}, init: default}]\n",
        encoding="utf-8",
    )
    found = noted(plan_recipe(load(path), to_run=False).plans["main"])
    assert "times the std of the default" in found["blocks.0.attn.qkv.weight"]
