"""Every error the product raises has a code of its own kind."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import mimetic

PACKAGE = Path(mimetic.__file__).parent
RAISERS = {"UserError", "RunError", "Issue", "validation_error"}
"""Calls that make an error."""

CODE = re.compile(r"MIM-[CRGVSIPMDUTKYLAXN]\d{3}")

SHARED = {"MIM-R001", "MIM-R004", "MIM-C010", "MIM-C019", "MIM-C022"}
"""Codes of one kind of error that several files find: an unknown key, a wrong kind of value, …"""

SEVERAL = {"MIM-R002", "MIM-R006", "MIM-R007", "MIM-R072", "MIM-R074", "MIM-L004"}
"""Codes of one kind of error with several messages in its file."""


def sources() -> list[Path]:
    """Return the files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def calls(path: Path) -> Iterator[ast.Call]:
    """Yield the calls in a file that make an error."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in RAISERS:
                yield node


@pytest.mark.parametrize("path", sources(), ids=str)
def test_every_error_has_a_code(path: Path) -> None:
    """An error without a code cannot be searched, documented or tested."""
    for call in calls(path):
        assert "code" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"


def test_codes_are_well_formed_and_unique() -> None:
    """A code has the room's letter and three digits, and stands for one kind of error in one file."""
    found: dict[str, set[Path]] = defaultdict(set)
    for path in sources():
        for text in re.findall(r"MIM-[^\"\'`\s)\],]*", path.read_text(encoding="utf-8")):
            if text not in {"MIM-", "MIM-…"} and "`" not in text:
                found[text].add(path)
    codes = {code: paths for code, paths in found.items() if CODE.fullmatch(code)}
    assert set(found) <= set(codes), f"malformed: {set(found) - set(codes)}"
    twice = {
        code: sorted(path.name for path in paths)
        for code, paths in codes.items()
        if len({path for path in paths if f'"{code}"' in path.read_text(encoding="utf-8")}) > 1
    }
    assert set(twice) <= SHARED, twice


def test_a_file_has_one_error_for_a_code() -> None:
    """A code that occurs twice in a file is one kind of error, found at several places."""
    for path in sources():
        codes = re.findall(r'"(MIM-[A-Z]\d{3})"', path.read_text(encoding="utf-8"))
        assert {code for code in codes if codes.count(code) > 1} <= SHARED | SEVERAL, path
