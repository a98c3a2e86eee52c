"""The recipe language: from YAML to frozen, validated sections, without torch.

Order matters here: the types come first, then those of plugins, then the whole recipe, because a choice
among types is fixed when its section is first used.
"""

# ruff: noqa: E402
from mimetic.recipe import (
    attention_init,
    bank,
    covariance,
    data,
    initializer,
    learner,
    measured,
    model,
    rainbow,
    scale,
    structured,
    surgery,
    train,
    transplant,
)
from mimetic.recipe.registry import load_plugins

load_plugins()

from mimetic.recipe.dump import resolved
from mimetic.recipe.errors import Issue, Mark, RecipeError
from mimetic.recipe.json_schema import json_schema
from mimetic.recipe.load import load, loads
from mimetic.recipe.recipe import Arm, Recipe, Stage
from mimetic.recipe.rule import Rule
from mimetic.recipe.stages import stages_of

__all__ = [
    "Arm",
    "Issue",
    "Mark",
    "Recipe",
    "RecipeError",
    "Rule",
    "Stage",
    "attention_init",
    "bank",
    "covariance",
    "data",
    "initializer",
    "json_schema",
    "learner",
    "load",
    "loads",
    "measured",
    "model",
    "rainbow",
    "resolved",
    "scale",
    "stages_of",
    "structured",
    "surgery",
    "train",
    "transplant",
]
