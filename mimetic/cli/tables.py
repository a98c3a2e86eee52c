"""Tables several verbs print."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.study.comparing.comparison import Comparison

NARROW = 90
"""Columns below which a table of arms would break its words: each arm becomes a block of lines."""


def print_comparison(out: "Console", comparison: "Comparison") -> None:
    """Print the arms side by side, or one below the other where the terminal is narrow."""
    from mimetic.study.comparing.rendering import cells, correction_note

    header, rows = cells(comparison)
    if out.width >= NARROW:
        out.print(comparison_table(header, rows))
    else:
        for arm, *values in rows:
            out.print(f"\n{arm}")
            for name, value in zip(header[1:], values, strict=True):
                if value not in {"", "–"}:
                    out.print(f"  {name if name else 'verdict':<24} {value}", soft_wrap=True)
        out.print()
    if note := correction_note(comparison):
        out.print(note)


def comparison_table(header: list[str], rows: list[list[str]]) -> Table:
    """Return the comparison of arms as a table for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
