"""A key of an earlier version is an error that names the present key."""

import pytest

from mimetic.config.errors import RecipeError
from mimetic.recipe.load import loads

TILING = "init: {type: weight_tiling, from: {checkpoint: a.pt, model: vit}, KEY}"
FILTERS = "covariance: {type: filters, from: {checkpoint: a.pt, model: vit}, KEY}"
WEIGHTED = "covariance: {type: mixture, components: [{covariance: identity}, {covariance: identity, KEY}]}"
MIXTURE = "covariance: {type: mixture, components: [{covariance: identity}, {covariance: identity}], KEY}"


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (TILING, "parts: 3", "chunks"),
        (TILING, "keep: entries", "preserve"),
        (FILTERS, "between: nearest", "depth_matching"),
        (FILTERS, "keep: pixel", "preserve"),
        (WEIGHTED, "share: 3", "weight"),
        (MIXTURE, "parts: 3", "components"),
    ],
)
def test_renamed_key(rule: str, old: str, new: str) -> None:
    """The old key is unknown, and the hint is its new name."""
    text = f"recipe: 1\nname: x\ninit:\n  - {{match: a, {rule.replace('KEY', old)}}}\n"

    with pytest.raises(RecipeError) as caught:
        loads(text)

    (issue,) = caught.value.issues
    assert (issue.code, issue.hint) == ("MIM-R001", f"`{old.partition(':')[0]}` is now `{new}`")


def test_synonym() -> None:
    """`name` is a key of other sections; in a match, users mean the layer's name."""
    with pytest.raises(RecipeError) as caught:
        loads("recipe: 1\nname: x\ninit:\n  - {match: {name: a}, covariance: identity}\n")

    (issue,) = caught.value.issues
    assert (issue.code, issue.hint) == ("MIM-R001", "did you mean `layer`?")


def test_renamed_type() -> None:
    """The old type is unknown, and the hint is its new name."""
    with pytest.raises(RecipeError) as caught:
        loads("recipe: 1\nname: x\ninit:\n  - {match: a, covariance: identity, scale: study_compat}\n")

    (issue,) = caught.value.issues
    assert (issue.code, issue.hint) == ("MIM-R003", "`study_compat` is now `kaiming_nfm`")
