"""The corpus of wrong recipes: each has its full message beside it, word for word.

`NNN-name.yaml` is the recipe, `NNN-name.txt` the message, `NNN-name.set` the overrides, one a line. In a
message `<scale>` stands for all registered types of scale, and so on, so that a new type changes none.
Where a change is meant, `MIMETIC_REWRITE=1` writes the messages anew: read each in the diff.
"""

import os
from pathlib import Path

import pytest

from mimetic.config.errors import RecipeError
from mimetic.config.registry import families, registered
from mimetic.config.suggest import listed
from mimetic.recipe.load import load

FOLDER = Path(__file__).parent / "wrong"
CASES = sorted(FOLDER.glob("*.yaml"))
TYPES = {f"types: <{family}>": f"types: {listed(registered(family))}" for family in families()}


def message_of(case: Path) -> str:
    """Return the message a recipe of the corpus is refused with."""
    sets = case.with_suffix(".set")
    with pytest.raises(RecipeError) as caught:
        load(case.name, overrides=sets.read_text().splitlines() if sets.exists() else [])
    message = f"{caught.value}\n"
    for short, long in TYPES.items():
        message = message.replace(f"{long}\n", f"{short}\n")
    return message


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake is told at its place, with its path and a repair, exactly as written down."""
    monkeypatch.chdir(FOLDER)
    message = message_of(case)
    if os.environ.get("MIMETIC_REWRITE") == "1":
        case.with_suffix(".txt").write_text(message, encoding="utf-8")
    assert case.with_suffix(".txt").read_text(encoding="utf-8") == message


def test_corpus_is_whole() -> None:
    """No message lacks its recipe, and there are enough of them to mean something."""
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in CASES}
    assert len(CASES) >= 65
