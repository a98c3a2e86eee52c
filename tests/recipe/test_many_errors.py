"""Messages take linear time and stay short, however much is wrong."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mimetic.config.errors import MAX_ISSUES, RecipeError
from mimetic.recipe.load import load, loads

MANY = {
    "duplicate keys": lambda n: "recipe: 1\n" + "name: a\n" * n,
    "duplicate keys on a line": lambda n: "{recipe: 1, " + "name: a, " * n + "}",
    "unknown keys": lambda n: "recipe: 1\n" + "".join(f"unknwon{i}: 1\n" for i in range(n)),
    "unknown keys of a section": lambda n: (
        "recipe: 1\nmodel:\n  type: convmixer\n" + "".join(f"  depht{i}: 1\n" for i in range(n))
    ),
    "tags": lambda n: "recipe: 1\nseeds: [" + "!a 1, " * n + "]",
    "rules": lambda n: "recipe: 1\nmodel: convmixer\ninit: [" + "{match: {kind: spatail}}, " * (n // 4) + "]",
    "wrong seeds": lambda n: "recipe: 1\nseeds: [" + "a, " * n + "]",
    "missing files": lambda n: "recipe: 1\nextends: [" + ", ".join(f"a{i}.yaml" for i in range(n // 4)) + "]",
}


@pytest.mark.parametrize("number", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("text", MANY.values(), ids=MANY)
def test_many_errors(text: Callable[[int], str], number: int, tmp_path: Path) -> None:
    """A hundred of them are shown, within seconds."""
    path = tmp_path / "r.yaml"
    path.write_text(text(number))
    started = time.monotonic()
    with pytest.raises(RecipeError) as refused:
        load(path)
    shown = str(refused.value)

    assert time.monotonic() - started < 20.0  # in quadratic time, 20,000 of them took a minute
    assert 1 <= len(refused.value.issues) <= 2 * MAX_ISSUES
    assert len(shown) < 100_000


def test_deep_and_looping(tmp_path: Path) -> None:
    """Nesting and links that lead nowhere have a position or a file, too."""
    for text in ("[" * 5000, "a: " + "{a: " * 3000, "- " * 4000, "recipe: 1\n" + "? " * 4000):
        with pytest.raises(RecipeError):
            loads(text)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "r.yaml").write_text("recipe: 1\nextends: loop.yaml\n")
    for path in ("loop.yaml", "r.yaml"):
        with pytest.raises(RecipeError, check=lambda error: error.issues[0].code == "MIM-C003"):
            load(tmp_path / path)
