"""The corpus of wrong recipes: every error is reported at its position, with its code.

`NNN-name.yaml` is the recipe and `NNN-name.set` the overrides, one per line. `issues.json` has the code,
line, column and path of every error; some recipes have their complete message in `NNN-name.txt`, where
`<scale>` stands for all registered types of scale, and so on. `MIMETIC_REWRITE=1` rewrites both: read the
diff.
"""

import json
import os
from pathlib import Path

import pytest

from mimetic.config.errors import Issue, RecipeError, dotted
from mimetic.config.registry import families, registered
from mimetic.config.suggest import listed
from mimetic.recipe.load import load

FOLDER = Path(__file__).parent / "wrong"
CASES = sorted(FOLDER.glob("*.yaml"))
MESSAGES = sorted(FOLDER.glob("*.txt"))
REWRITE = os.environ.get("MIMETIC_REWRITE") == "1"


def error_of(case: Path) -> RecipeError:
    """Return the error a recipe of the corpus is refused with."""
    sets = case.with_suffix(".set")
    with pytest.raises(RecipeError) as caught:
        load(case.name, overrides=sets.read_text().splitlines() if sets.exists() else [])
    return caught.value


def position_of(issue: Issue) -> str:
    """Return the code, position and path of an issue as one line."""
    mark = issue.mark
    where = "-" if mark is None else f"{mark.file}:{mark.line}:{mark.column}"
    return f"{issue.code} {where} {dotted(issue.path)}".rstrip()


def test_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every error of every recipe has its code, position and path."""
    monkeypatch.chdir(FOLDER)
    found = {case.stem: [position_of(issue) for issue in error_of(case).issues] for case in CASES}
    golden = FOLDER / "issues.json"
    if REWRITE:
        golden.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(golden.read_text(encoding="utf-8"))
    assert len(found) >= 190


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_message(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The complete message is readable and stays as reviewed."""
    monkeypatch.chdir(FOLDER)
    message = f"{error_of(path.with_suffix('.yaml'))}\n"
    for family in families():
        message = message.replace(f"types: {listed(registered(family))}\n", f"types: <{family}>\n")
    if REWRITE:
        path.write_text(message, encoding="utf-8")
    assert message == path.read_text(encoding="utf-8")
