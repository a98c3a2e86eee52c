"""How the networks a recipe takes from are called."""

from typing import Any

import pytest

from mimetic.recipe.measured import Nfm
from mimetic.study.origins import origin_name


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"stage": "small"}, "stage small"),
        ({"checkpoint": "a.pt"}, "checkpoint a.pt"),
        (
            {"model": {"type": "torchvision", "name": "vgg11"}, "weights": "DEFAULT"},
            "vgg11 with weights DEFAULT",
        ),
    ],
)
def test_origins_are_called_as_people_read_them(origin: dict[str, Any], expected: str) -> None:
    """Plans and messages name the network a covariance comes from."""
    assert origin_name(Nfm.model_validate({"from": origin})) == expected
