"""Arms side by side, and one below the other where there is no room."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from mimetic.cli.tables import print_comparison
from mimetic.study.comparing.comparison import of_study


def printed(root: Path, width: int) -> list[str]:
    """Return the lines of the quickstart's comparison at a width."""
    out = Console(file=StringIO(), width=width, highlight=False, markup=False)
    print_comparison(out, of_study(root / "studies" / "quickstart" / "20261121-032523"))
    return out.file.getvalue().splitlines()


def test_wide(quickstart: Path) -> None:
    """One row for each arm."""
    rows = [line for line in printed(quickstart, 120) if "closed-form" in line]
    assert len(rows) == 2
    assert "+1.02   [−1.28, +3.32]   inconclusive" in rows[0]


def test_narrow(quickstart: Path) -> None:
    """One block for each arm; no word is broken, and what has no value has no line."""
    lines = printed(quickstart, 60)
    assert [line.rstrip() for line in lines if line and not line.startswith(" ")] == [
        "default",
        "closed-form",
        "closed-form-frozen",
        "2 comparisons with default: Holm-corrected, 5% family-wise",
        "error",
    ]
    assert "  verdict                  inconclusive" in lines
    assert "  95% interval             [−0.04, +3.00]" in lines
    assert sum("vs default" in line for line in lines) == 2
    assert max(len(line) for line in lines) < 60
