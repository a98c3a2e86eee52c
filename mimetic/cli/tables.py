"""Tables several verbs print."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from mimetic.study.comparison import Comparison


def comparison_table(comparison: "Comparison") -> Table:
    """Return the comparison of arms as a table for the terminal."""
    from mimetic.study.rendering import cells

    header, rows = cells(comparison)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
