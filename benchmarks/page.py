"""docs/performance.md, from the prose of performance.md beside this file and the results."""

import re
import sys

from benchmarks.measurement import RESULTS, ROOT, Result

TEMPLATE = ROOT / "benchmarks" / "performance.md"
PAGE = ROOT / "docs" / "performance.md"

MARKER = re.compile(r"<!-- table: ([\w/-]+) -->")
"""Where a result goes: its command and machine, its tables, its notes."""


def page() -> str:
    """Return the page: the template with each marker replaced by the result it names."""
    return MARKER.sub(lambda found: _shown(found[1]), TEMPLATE.read_text(encoding="utf-8"))


def _shown(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if name.startswith("gpu/") and not path.exists():
        return "Not measured yet."
    return Result.read(path).markdown()


def write(*, check: bool) -> int:
    """Write the page, or check that it is current; return the exit code."""
    made = page()
    if not check:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == made:
        return 0
    print("docs/performance.md is not current: run `python -m benchmarks docs`", file=sys.stderr)
    return 1
