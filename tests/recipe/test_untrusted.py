"""The strictest reading of a recipe: nothing beside it is read, downloaded or run."""

from pathlib import Path

import pytest

from mimetic.config.errors import RecipeError
from mimetic.recipe.load import load

FROM = "recipe: 1\nmodel: convmixer\ninit: [{match: {kind: conv}, covariance: {type: filters, from: {%s}}}]\n"
OUTSIDE = {
    "extends": "recipe: 1\nextends: other.yaml\n",
    "code": "recipe: 1\nmodel: {type: python, call: 'os:system'}\n",
    "root": "recipe: 1\ndata: {type: digits, root: /etc}\n",
    "path": "recipe: 1\ndata: {type: image_folder, path: /etc}\n",
    "download": "recipe: 1\ndata: {type: cifar10, download: true}\n",
    "checkpoint": FROM % "checkpoint: /etc/passwd",
    "trial": FROM % "trial: /etc/x/seed-0",
    "tensors": FROM % "tensors: /etc/passwd",
    "file": "recipe: 1\nmodel: vit\ninit: [{match: {kind: attention}, init: {type: mimetic_attention, from: "
    "{file: /etc/x}}}]\n",
    "weights": FROM % "model: {type: timm, name: resnet18}, weights: DEFAULT",
}


@pytest.mark.parametrize("text", OUTSIDE.values(), ids=OUTSIDE)
def test_what_reaches_outside_is_refused_at_its_line(text: str, tmp_path: Path) -> None:
    """Each is allowed otherwise, but for the missing file."""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        load(path, untrusted=True)

    assert {issue.code for issue in refused.value.issues} <= {"MIM-R036", "MIM-R037"}
    assert all(issue.mark is not None and issue.mark.line > 1 for issue in refused.value.issues)
    if "extends" not in text:
        load(path)


def test_recipes_of_their_own_are_accepted(tmp_path: Path) -> None:
    """What is complete is valid."""
    (tmp_path / "r.yaml").write_text("recipe: 1\nmodel: convmixer\ndata: digits\ntrain: {epochs: 1}\n")

    assert load(tmp_path / "r.yaml", untrusted=True).arms
