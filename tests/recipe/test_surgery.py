"""The `surgery` of a recipe: composition by id, overrides, and mistakes."""

from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.recipe.load import load

BASE: dict[str, Any] = {
    "recipe": 1,
    "surgery": [{"id": "lc", "match": {"kind": "conv"}, "type": "linear_combination", "expansion": 4}],
}


def arm(own: dict[str, Any], *overrides: str) -> list[dict[str, Any]]:
    """Return the rewrites of an arm that inherits one, as plain values without what is matched."""
    recipe = load({**BASE, "arms": {"a": own}}, overrides=overrides)
    return [rewrite.model_dump(exclude={"match", "expect"}) for rewrite in recipe.arms["a"].surgery]


INHERITED = {"id": "lc", "freeze": True, "type": "linear_combination", "expansion": 4}
INHERITED |= {"norm": False, "activation": "none"}


def test_rewrites_merge_by_id() -> None:
    """A change keeps the rest; new rewrites come first; another type keeps id and match alone."""
    assert arm({}) == [INHERITED]
    assert arm({"surgery": [{"id": "lc", "freeze": False}]}) == [{**INHERITED, "freeze": False}]
    new = arm({"surgery": [{"match": "stem", "type": "shared_filters"}]})
    assert [rewrite["id"] for rewrite in new] == ["rewrite-1", "lc"]
    other = arm({"surgery": [{"id": "lc", "type": "factorised"}]})
    assert other == [{"id": "lc", "freeze": True, "type": "factorised"}]
    assert arm({"remove": ["lc"]}) == []


def test_overrides_reach_rewrites_by_id() -> None:
    """As rules, below an arm and at the top."""
    assert arm({}, "arms.a.surgery.lc.expansion=8") == [{**INHERITED, "expansion": 8}]
    assert arm({}, "surgery.lc.activation=relu") == [{**INHERITED, "activation": "relu"}]


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        ({"expansion": 0}, "expansion: expected at least 1|at least 1"),
        ({"expansion": 4096}, "at most 1024"),
        (
            {"match": {"kind": "conv", "param": "bias"}},
            "a rewrite replaces whole layers, so it has no `param`",
        ),
        ({"type": "linear_combinations"}, "unknown surgery type `linear_combinations`"),
        ({"type": "factorised"}, "unknown key `expansion`"),
    ],
)
def test_mistakes(rewrite: dict[str, Any], message: str) -> None:
    """Each is told as the mistakes of rules are."""
    with pytest.raises(RecipeError, match=message):
        load({**BASE, "surgery": [{**BASE["surgery"][0], **rewrite}]})
