"""A recipe's surgery on a model of one's own."""

from typing import Any

import pytest
import torch
from torch import nn

import mimetic
from mimetic.config.errors import RecipeError

RECIPE: dict[str, Any] = {
    "recipe": 1,
    "surgery": [{"id": "lc", "match": {"kind": "conv"}, "type": "linear_combination", "expansion": 2}],
    "init": [{"id": "f", "match": {"kind": "conv"}, "covariance": "closed_form", "scale": "match_default"}],
}


def own() -> nn.Sequential:
    """Return a network with one spatial convolution."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1))


def test_plan_leaves_the_model_and_initialize_rewrites_it() -> None:
    """The plan is that of the model after surgery; it is carried out by `initialize` alone."""
    model, example = own(), torch.zeros(2, 3, 8, 8)
    before = repr(model)
    made = mimetic.plan(model, RECIPE, seed=1, example=example)

    assert before == repr(model)
    assert made.frozen == ("0.filters.weight",)
    assert made.hash == mimetic.initialize(model, RECIPE, seed=1, example=example).hash
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["0.filters.weight"]
    assert tuple(model(example).shape) == (2, 5, 6, 6)


def test_mistake_leaves_the_model() -> None:
    """A rule that does not fit the rewritten model is found before the model is touched."""
    model = own()
    before = repr(model)

    with pytest.raises(RecipeError, match="matches nothing"):
        mimetic.initialize(model, {**RECIPE, "init": [{"match": "0", "init": "orthogonal"}]})
    assert before == repr(model)
