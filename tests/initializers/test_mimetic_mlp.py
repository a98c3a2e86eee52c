"""MLP pairs whose first layer has a mean."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from mimetic.graph.sites import find_sites
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load


class Pair(nn.Module):
    """Two linear layers under names of someone's choice."""

    def __init__(self, first: str, second: str, width: int = 64) -> None:
        super().__init__()
        self.add_module(first, nn.Linear(width, 4 * width))
        self.add_module(second, nn.Linear(4 * width, width))


def _plan(model: nn.Module, **settings: Any) -> Plan:
    rule = {"id": "mlp", "match": {"kind": "mlp"}, "init": {"type": "mimetic_mlp", **settings}}
    arm = load({"recipe": 1, "name": "r", "init": [rule]}).arms["main"]
    return resolve(arm, find_sites(model, torch.empty(2, 64)), seed=0)


@pytest.mark.parametrize(("std", "expected"), [(None, 1 / math.sqrt(3 * 64)), (0.02, 0.02)])
@pytest.mark.parametrize("shift", [-0.5, 2.0])
def test_the_mean_is_in_units_of_the_deviation(std: float | None, expected: float, shift: float) -> None:
    """The first layer has the standard deviation, and the shift times it as mean; the second stays."""
    model = nn.ModuleDict({"mlp": Pair("fc1", "fc2")})
    second = model.get_parameter("mlp.fc2.weight").detach().clone()
    _plan(model, shift=shift, **({} if std is None else {"std": std})).apply(model)
    weight = model.get_parameter("mlp.fc1.weight").detach()

    assert float(weight.std()) == pytest.approx(expected, rel=0.03)
    assert float(weight.mean()) == pytest.approx(shift * expected, abs=4 * expected / 128)
    assert torch.equal(model.get_parameter("mlp.fc2.weight"), second)


@pytest.mark.parametrize("names", [("fc1", "fc2"), ("linear1", "linear2"), ("c_fc", "c_proj"), ("0", "3")])
def test_names_do_not_matter(names: tuple[str, str]) -> None:
    """Whatever the two layers are called, they get the same values."""
    weights = []
    for first, second in (("fc1", "fc2"), names):
        model = nn.ModuleDict({"mlp": Pair(first, second)})
        _plan(model).apply(model)
        weights.append(model.get_parameter(f"mlp.{first}.weight"))

    assert torch.equal(*weights)


def test_pairs_of_other_libraries() -> None:
    """Blocks of timm and transformers, torch's encoder layer and GPT-2's input-first pair are recognised."""
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    tiny = {"hidden_size": 8, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    with torch.device("meta"):
        models = [
            timm.create_model("vit_tiny_patch16_224", depth=1),
            nn.TransformerEncoderLayer(8, 2, 16),
            transformers.BertModel(transformers.BertConfig(**tiny)),
            transformers.GPT2Model(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2)),
            transformers.LlamaModel(transformers.LlamaConfig(**tiny)),
        ]
    found = [
        [slot.parameter for slot in site.structure.slots if slot.name == "fc1"]
        for model in models
        for site in find_sites(model).composites
        if site.kind == "mlp" and site.structure is not None
    ]
    expected = ["fc1.weight", "linear1.weight", "intermediate.dense.weight", "c_fc.weight", "up_proj.weight"]
    assert [[name] for name in expected] == found
