"""Tables: rows where they fit the terminal, blocks of lines where they do not."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mimetic.cli.console import print_comparison, print_table
from mimetic.study.comparing.comparison import of_studies
from mimetic.tables import Table


def terminal(width: int) -> Console:
    """Return a terminal of a width."""
    return Console(file=StringIO(), width=width, highlight=False, markup=False, force_terminal=True)


def printed(root: Path, width: int) -> list[str]:
    """Return the lines of the quickstart's comparison on a terminal of a width."""
    out = terminal(width)
    print_comparison(out, of_studies([root / "studies" / "quickstart" / "20261121-032523"])[0])
    return out.file.getvalue().splitlines()


def test_wide(quickstart: Path) -> None:
    """One row for each arm."""
    rows = [line for line in printed(quickstart, 120) if "closed-form" in line]
    assert len(rows) == 2
    assert "+1.02  [−1.28, +3.32]  inconclusive" in rows[0]


def test_optional_columns_go_first(quickstart: Path) -> None:
    """80 columns have room for the result of each arm, whole; 100 for more columns."""
    lines = printed(quickstart, 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split("  ")[0] == "arm"
    assert "closed-form-frozen  3  98.24 ± 0.64       +1.48  [−0.04, +3.00]  inconclusive" in lines
    assert "P(better)" in printed(quickstart, 100)[0]
    assert "time" in printed(quickstart, 140)[0]


@pytest.mark.parametrize("width", [60, 70])
def test_narrow(quickstart: Path, width: int) -> None:
    """One block for each arm; no word is broken, and what has no value is left out."""
    lines = printed(quickstart, width)
    assert [line for line in lines if line and not line.startswith(" ")][:3] == [
        "default",
        "closed-form",
        "closed-form-frozen",
    ]
    text = " ".join(line.strip() for line in lines)
    assert "95% interval [−0.04, +3.00], inconclusive" in text
    assert text.count("vs default") == 2
    assert max(map(len, lines)) <= width


def test_a_file_gets_rows_whatever_their_width() -> None:
    """Where the output is no terminal, nothing is folded or cut."""
    out = Console(file=StringIO(), width=40)
    print_table(out, Table("", ("name", "value"), (("a" * 50, "b" * 50),), left=2))
    assert f"{'a' * 50}  {'b' * 50}" in out.file.getvalue()
