"""A key of an earlier version is an error that names the present key."""

import pytest

from mimetic.config.errors import RecipeError
from mimetic.recipe.load import loads


@pytest.mark.parametrize(("old", "new"), [("parts: 3", "chunks"), ("keep: entries", "preserve")])
def test_renamed_key(old: str, new: str) -> None:
    """The old key is unknown, and the hint is its new name."""
    text = (
        "recipe: 1\nname: x\ninit:\n"
        f"  - {{match: a, init: {{type: weight_tiling, from: {{checkpoint: a.pt, model: vit}}, {old}}}}}\n"
    )

    with pytest.raises(RecipeError) as caught:
        loads(text)

    (issue,) = caught.value.issues
    assert issue.code == "MIM-R001"
    assert issue.hint is not None
    assert new in issue.hint
