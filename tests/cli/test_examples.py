"""The worked examples in the help are true: each command is run, each line it shows is printed."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.cli import compare, diff, explain, ls, new, plan, run, schema, ui, validate

Call = Callable[..., Result]

VERBS = {
    "compare": compare,
    "diff": diff,
    "explain": explain,
    "ls": ls,
    "new": new,
    "plan": plan,
    "schema": schema,
    "validate": validate,
}


@pytest.fixture
def place(quickstart: Path, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand where the examples are run: recipes, a study, and the files they speak of."""
    folder = quickstart.parent
    (folder / "recipes").symlink_to(recipes)
    (folder / "wrong.yaml").write_text(
        "recipe: 1\ninit:\n  - match: {kind: depthwise}\n    covariance: closed_form\n", encoding="utf-8"
    )
    (folder / "filters.yaml").write_text(
        "recipe: 1\ninit:\n  - {match: {kind: depthwise_conv}, covariance: closed_form}\n", encoding="utf-8"
    )
    monkeypatch.chdir(folder)
    return folder


def shown(epilog: str) -> list[tuple[str, list[str]]]:
    """Return each command of an example with the lines it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in epilog.replace("\b", "").partition("Example:")[2].splitlines():
        if line.startswith("  $ "):
            found.append((line.removeprefix("  $ "), []))
        elif line.strip() and found:
            found[-1][1].append(line)
    return found


def pattern(line: str) -> str:
    """Return a line of an example as an expression: runs of blanks are one, `…` is anything."""
    return ".*".join(re.escape(part) for part in " ".join(line.split()).split("…"))


@pytest.mark.parametrize("verb", VERBS)
def test_examples_are_true(verb: str, place: Path, call: Call) -> None:
    """Every command runs, and every line shown is printed, in this order."""
    examples = [(c, lines) for c, lines in shown(VERBS[verb].EPILOG) if c.startswith("mimetic ")]
    assert examples
    for command, lines in examples:
        result = call(*shlex.split(command)[1:])
        assert result.exit_code == (2 if "wrong.yaml" in command else 0), result.output
        printed = iter([" ".join(line.split()) for line in result.output.splitlines()])
        for line in lines:
            if line.strip() != "…":
                assert any(re.fullmatch(pattern(line), text) for text in printed), f"{command}: {line}"


def test_run_shows_the_table_that_compare_shows() -> None:
    """One run is shown in two places with the same figures."""
    table = [line for _, lines in shown(compare.EPILOG) for line in lines if "study" not in line]
    assert table
    assert table == [line for line in shown(run.EPILOG)[0][1] if line in table]


def test_ui_prints_what_its_example_shows() -> None:
    """The three lines before the server's own."""
    ((command, lines),) = shown(ui.EPILOG)
    assert command == "mimetic ui"
    assert [line.split()[0] for line in lines] == ["MLflow", "quickstart:", "Ctrl-C"]


def test_the_languages_own_example(call: Call, tmp_path: Path) -> None:
    """The recipe and the rule that docs/language.md shows are valid."""
    text = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")
    recipe, rule, *_ = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    whole, part = tmp_path / "recipe.yaml", tmp_path / "rule.yaml"
    whole.write_text(recipe, encoding="utf-8")
    part.write_text(f"recipe: 1\ninit:\n{rule}", encoding="utf-8")
    result = call("validate", whole, part)
    assert result.exit_code == 0, result.output
