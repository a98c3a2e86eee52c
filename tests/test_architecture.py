"""ARCHITECTURE.md and CONTRIBUTING.md name files, functions and examples that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| \d+ \| `(mimetic/[\w/]+\.py)` \| `(\w+)` \|", MAP, re.MULTILINE)
RULE_STEPS = re.findall(r"^\| \d+ \|", MAP.split("## The walk of one metric")[0], re.MULTILINE)


@pytest.mark.parametrize("text", [MAP, GUIDE], ids=["architecture", "contributing"])
def test_files_exist(text: str) -> None:
    """Every path in the two pages is a file or folder of the project."""
    paths = set(re.findall(r"`((?:mimetic|tests|docs|recipes|benchmarks)/[\w./-]+)`", text))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_steps_exist(file: str, name: str) -> None:
    """Every step of a walk is a function or class of its file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert name in defined


def test_the_walk_of_a_rule_is_short() -> None:
    """From YAML to tensor in at most 20 steps, through at most six packages after the entry."""
    assert 1 < len(RULE_STEPS) <= 20
    rule_steps = STEPS[: len(RULE_STEPS)]
    assert len({file.split("/")[1] for file, _ in rule_steps[1:]}) <= 6


def test_every_package_is_on_the_map() -> None:
    """No package of mimetic is missing."""
    packages = {path.parent.name for path in (ROOT / "mimetic").glob("*/__init__.py")}
    assert [name for name in sorted(packages) if f"`mimetic/{name}`" not in MAP] == []


def test_examples_are_those_that_run() -> None:
    """Every Python example of CONTRIBUTING.md stands in a file that the tests run, word for word."""
    examples = re.findall(r"```python\n# (tests/[\w/.]+)\n(.*?)```", GUIDE, re.DOTALL)
    assert len(examples) >= 10
    for file, code in examples:
        source = (ROOT / file).read_text(encoding="utf-8")
        for block in code.strip().split("\n\n\n"):
            assert block.strip() in source, (file, block)
