"""A study that resamples its stage: with alignment far above chance before a step is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.journal import history, read_journal
from mimetic.recipe.load import load
from mimetic.study.planning.arms import plan_arms
from mimetic.study.study import run

RULE = {
    "id": "network",
    "match": {"layer": ".*", "param": ".*"},
    "init": {"type": "rainbow", "from": {"stage": "trained"}, "images": 300},
}
DIGITS: dict[str, Any] = {
    "recipe": 1,
    "name": "rainbow",
    "model": {"type": "plain_cnn", "widths": [16, 24]},
    "data": "digits",
    "train": {"epochs": 0},
    "arms": {
        "aligned": {"init": [RULE]},
        "unaligned": {"extends": "aligned", "init": [{"id": "network", "init": {"align": False}}]},
    },
    "stages": {
        "trained": {"train": {"epochs": 3, "batch_size": 64, "optimizer": {"type": "adamw", "lr": 0.01}}}
    },
}


@pytest.mark.slow
def test_alignment_keeps_what_was_learned(tmp_path: Path) -> None:
    """Arms without epochs are judged as they begin; what was aligned how well is in the journal."""
    result = run(load(DIGITS), root=tmp_path, offline=True, workers=1)
    found = {}
    for arm in ("aligned", "unaligned"):
        events = read_journal(result.folder / arm / "seed-0" / "journal.jsonl")
        found[arm] = history(events)["test/acc"][0]
        notes = [event["text"] for event in events if event["event"] == "note"]
    plan = json.loads((result.folder / "aligned" / "seed-0" / "plan.json").read_text())

    assert result.complete
    assert found["aligned"] > found["unaligned"] + 0.3
    assert notes == ["blocks.0.conv.weight resampled; blocks.1.conv.weight resampled; head.weight copied"]
    assert {entry["initializer"] for entry in plan["entries"]} == {"rainbow"}
    assert plan["entries"][0]["notes"] == ["16 filters resampled from 16 of stage trained, seed 0"]


def test_several_seeds_are_refused() -> None:
    """One network is resampled: the section says which."""
    rule = {**RULE, "init": {**RULE["init"], "from": {"stage": "trained", "seeds": "all"}}}
    recipe = load({**DIGITS, "seeds": 2, "arms": {"a": {"init": [rule]}}})
    with pytest.raises(RecipeError, match="trained on 2 seeds; choose one, `seeds: \\[0\\]`"):
        plan_arms(recipe)
