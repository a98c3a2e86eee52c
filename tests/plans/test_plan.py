"""How a plan says in one line what a parameter begins from."""

from typing import Any

import pytest

from mimetic.config.registry import registered
from mimetic.covariance.config import CovarianceSource
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


@pytest.mark.parametrize("name", registered("covariance"))
def test_every_covariance_has_a_line(name: str) -> None:
    """The line starts with its type; parts of a mixture and fits are written as sections."""
    section = registered("covariance")[name]
    assert issubclass(section, CovarianceSource)
    given = {"type": name, **section.example}
    if "from_" in section.model_fields:
        given["from"] = {"stage": "small"}
    if name == "file":
        given["path"] = "f.safetensors"
    if "fit" in section.model_fields:
        given["fit"] = {"type": "closed_form", "padding": "zero"}
    arguments = section.model_validate(given).arguments_at(0.5)
    entry = Entry(
        "w",
        "",
        "conv",
        (4, 3, 3, 3),
        "float32",
        0,
        rule="f",
        arguments={"covariance": arguments, "scale": {"type": "none"}},
    )
    line = describe(entry)
    assert line.startswith(name)
    assert "{" not in line
    assert ("fit=closed_form(padding=zero)" in line) == ("fit" in given)
