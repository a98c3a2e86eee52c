"""Conditions that one section holds by itself."""

from typing import Any

import pytest
from pydantic import ValidationError

from mimetic.covariance.config import Width
from mimetic.graph.config import Match, Range
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.rule import Freeze, Rule


@pytest.mark.parametrize(
    ("limits", "value", "holds"),
    [
        ({"min": 3}, 3, True),
        ({"min": 3}, 2, False),
        ({"max": 3}, 3, True),
        ({"max": 3}, 4, False),
        ({"min": 3, "max": 5}, 4, True),
        ({"min": 3}, None, False),
    ],
)
def test_range(limits: dict[str, int], value: int | None, holds: bool) -> None:
    """Ranges are closed; a layer without the quantity never matches."""
    assert Range(**limits).contains(value) is holds


def test_width() -> None:
    """The width grows with depth as start + linear·d + ½·quadratic·d²."""
    assert Width(start=0.1, linear=0.2, quadratic=0.4).at(0.5) == pytest.approx(0.25)


def test_freeze() -> None:
    """Either half of freezing counts."""
    assert [bool(Freeze(params=p, statistics=s)) for p in (None, False, True) for s in (False, True)] == [
        False,
        True,
        True,  # false makes parameters trainable
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "rule",
    [
        {"init": "zeros", "covariance": "identity"},
        {"init": "zeros", "scale": "kaiming"},
        {},
        {"freeze": {"params": None}},
    ],
)
def test_rules_that_contradict_themselves(rule: dict[str, Any]) -> None:
    """A rule begins weights in one way, or only freezes them."""
    with pytest.raises(ValidationError):
        Rule.model_validate({"id": "a", "match": "a", **rule})


def test_sections_are_frozen_and_closed() -> None:
    """Nothing of a recipe changes after it was read, and nothing unknown gets in."""
    match = Match.model_validate({"kind": "conv"})
    with pytest.raises(ValidationError):
        match.kind = "linear"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Match.model_validate({"knd": "conv"})


def test_ids_differ() -> None:
    """An arm built by hand cannot hold two rules of one id."""
    rule = {"id": "a", "match": "a", "init": "zeros"}
    with pytest.raises(ValidationError, match="two rules have the id `a`"):
        Arm.model_validate({"init": [rule, rule]})


def test_baseline_is_an_arm() -> None:
    """A recipe built by hand cannot compare with an arm it has not."""
    with pytest.raises(ValidationError, match="there is no arm `b`"):
        Recipe.model_validate({"name": "x", "baseline": "b", "arms": {"a": {}}})
