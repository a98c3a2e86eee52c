"""How a plan says in one line what a parameter begins from."""

from typing import Any

import pytest

from mimetic.plans.entry import Entry
from mimetic.plans.plan import describe

VGG = {"type": "torchvision", "name": "vgg11", "args": {}}


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ({"stage": "small", "seeds": "own"}, "stage small"),
        ({"stage": "small", "seeds": (3, 5)}, "stage small seeds 3, 5"),
        (
            {"checkpoint": "w.pt", "model": VGG, "seeds": "own"},
            "checkpoint w.pt model torchvision(name=vgg11)",
        ),
    ],
)
def test_origins_are_said_in_words(origin: dict[str, Any], said: str) -> None:
    """Neither Python's maps nor its tuples are shown, and no default."""
    arguments = {"covariance": {"type": "filters", "from": origin}, "scale": {"type": "none"}}
    entry = Entry("w", "", "conv", (4, 3, 3, 3), "float32", 0, rule="f", arguments=arguments)

    assert describe(entry) == f"filters(from={said})"
