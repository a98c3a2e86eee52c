"""The corpus of wrong recipes: each has its full message beside it, word for word.

`NNN-name.yaml` is the recipe, `NNN-name.txt` the message, `NNN-name.set` the overrides, one a line.
Where a change is meant, `MIMETIC_REWRITE=1` writes the messages anew: read each in the diff.
"""

import os
from pathlib import Path

import pytest

from mimetic.recipe import RecipeError, load

FOLDER = Path(__file__).parent / "wrong"
CASES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake is told at its place, with its path and a repair, exactly as written down."""
    monkeypatch.chdir(FOLDER)
    sets = case.with_suffix(".set")
    overrides = sets.read_text().splitlines() if sets.exists() else []
    with pytest.raises(RecipeError) as caught:
        load(case.name, overrides=overrides)
    if os.environ.get("MIMETIC_REWRITE") == "1":
        case.with_suffix(".txt").write_text(f"{caught.value}\n", encoding="utf-8")
    assert case.with_suffix(".txt").read_text(encoding="utf-8") == f"{caught.value}\n"


def test_corpus_is_whole() -> None:
    """No message lacks its recipe, and there are enough of them to mean something."""
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in CASES}
    assert len(CASES) >= 65
