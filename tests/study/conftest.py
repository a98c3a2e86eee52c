"""Recipes whose trials take a second: a plain one, and two whose arm begins from a stage."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Draw no pictures in this process: they cost ten times as much as these trials. Workers draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mimetic.study.trials.trial.filter_pictures", lambda *_: {})
        yield


PLAIN: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {"type": "convmixer", "dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2},
    "data": {"type": "digits", "train_size": 64, "test_size": 32},
    "train": {"epochs": 1, "batch_size": 32},
    "seeds": 2,
    "arms": {"default": {}},
}


def filters(covariance: Any, **rule: Any) -> dict[str, Any]:
    """Return an arm whose depthwise filters begin from a covariance."""
    return {"init": [{"id": "f", "match": {"kind": "depthwise_conv"}, "covariance": covariance, **rule}]}


HARVESTED: dict[str, Any] = {
    **PLAIN,
    "arms": {"agop": filters({"type": "agop", "from": {"stage": "one"}, "images": 16, "probes": 2})},
    "stages": {"one": {"seeds": [7]}},
}

_SELECTION = {"type": "weight_selection", "from": {"stage": "one"}}
SELECTED: dict[str, Any] = {
    **PLAIN,
    "arms": {
        "selection": {
            "init": [{"id": "all", "match": {"layer": "(?!head).*", "param": ".*"}, "init": _SELECTION}]
        }
    },
    "stages": {"one": {"seeds": [7], "model": {"dim": 16}}},
}
