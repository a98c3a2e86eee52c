"""Tables as data, for terminals, pages, Markdown and LaTeX; foreign text is escaped where it is shown."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mimetic.printable import plain_html, printable

NONE = "–"
"""A cell that has no value."""

_NUMBER = re.compile(r"([0-9]{1,9})")

_LONG = 3
"""Consecutive numbers that are written as a range, at least."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells with a header and notes.

    Attributes:
        title: What the table shows, as the title of a section.
        header: Names of the columns.
        rows: Cells, as many in each row as in the header.
        notes: Sentences below the table.
        optional: Columns that may be left out where there is no room, in this order.
        left: Number of leading columns that are aligned to the left; the others have numbers.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    left: int = 1

    @property
    def width(self) -> int:
        """Return the number of characters of a line."""
        widths = self._widths()
        return sum(widths) + 2 * (len(widths) - 1)

    def without(self, column: str) -> "Table":
        """Return the table without a column."""
        place = self.header.index(column)
        return replace(
            self,
            header=self.header[:place] + self.header[place + 1 :],
            rows=tuple(row[:place] + row[place + 1 :] for row in self.rows),
            optional=tuple(name for name in self.optional if name != column),
            left=self.left - (place < self.left),
        )

    def without_empty(self) -> "Table":
        """Return the table without the optional columns that have no value in any row."""
        table = self
        for name in self.optional:
            if all(row[table.header.index(name)] in {"", NONE} for row in table.rows):
                table = table.without(name)
        return table

    def fitted(self, width: int) -> "Table":
        """Return the table without the optional columns for which there is no room; all if none helps."""
        table = self
        while table.width > width and table.optional:
            table = table.without(table.optional[0])
        return table if table.width <= width else self

    def collapsed(self) -> "Table":
        """Return the table with one row for rows that differ in one number of their first cells.

        `blocks.0.attn.qkv.weight` and its like become `blocks.{0..11}.attn.qkv.weight ×12`, if their other
        cells are equal. Numbers are merged from left to right: repeated blocks first.
        """
        rows = [(tuple(_NUMBER.split(row[0])), row[1:], 1) for row in self.rows]
        longest = max((len(name) for name, _, _ in rows), default=0)
        for place in range(1, longest, 2):
            rows = _merged(rows, place)
        named = ("".join(name) + (f" ×{count}" if count > 1 else "") for name, _, count in rows)
        return replace(self, rows=tuple((name, *row[1]) for name, row in zip(named, rows, strict=True)))

    def lines(self) -> Iterator[str]:
        """Yield the header, a rule and the rows, in columns; control characters are escaped."""
        widths = self._widths()
        for row in (self.header, ["─" * width for width in widths], *self.rows):
            cells = [
                cell.ljust(width) if index < self.left else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(map(one_line, row), widths, strict=True))
            ]
            yield "  ".join(cells).rstrip()

    def html(self) -> str:
        """Return the table as HTML, without title and notes; all text is escaped."""
        body = "\n".join(self._html_row(row, "td") for row in self.rows)
        head = self._html_row(self.header, "th")
        return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def page(self) -> str:
        """Return title, table and notes as a fragment of HTML, as notebooks show it."""
        notes = "".join(f"<p>{plain_html(note)}</p>" for note in self.notes)
        return f"<p>{plain_html(self.title)}</p>\n{self.html() if self.rows else ''}\n{notes}"

    def _widths(self) -> list[int]:
        return [
            max(len(one_line(cell)) for cell in column)
            for column in zip(self.header, *self.rows, strict=True)
        ]

    def _html_row(self, cells: Sequence[str], tag: str) -> str:
        sides = ["left" if index < self.left else "right" for index in range(len(cells))]
        found = (
            f'<{tag} style="text-align: {side}">{plain_html(cell)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{''.join(found)}</tr>"


def number(value: float | None, decimals: int) -> str:
    """Return a cell with a number, or without a value."""
    return NONE if value is None else f"{value:.{decimals}f}"


def one_line(cell: str) -> str:
    """Return a cell as a line of a terminal shows it."""
    return printable(cell).replace("\n", r"\n")


_Row = tuple[tuple[str, ...], tuple[str, ...], int]
"""A name, split at its numbers; the other cells; how many rows it stands for."""


def _merged(rows: Iterable[_Row], place: int) -> list[_Row]:
    """Merge rows that differ in one number of their names, where the first of them is."""
    groups: dict[tuple[object, ...], list[_Row]] = {}
    for row in rows:
        name, cells, _ = row
        key = (*name[:place], None, *name[place + 1 :]) if place < len(name) else name
        groups.setdefault((key, cells), []).append(row)
    merged = []
    for group in groups.values():
        name, cells, count = group[0]
        numbers = [row[0][place] for row in group if place < len(row[0])]
        if len(group) > 1 and len(set(numbers)) == len(group):
            name = (*name[:place], _braces(numbers), *name[place + 1 :])
            count = sum(row[2] for row in group)
            merged.append((name, cells, count))
        else:
            merged += group
    return merged


def _braces(numbers: Sequence[str]) -> str:
    """Write a set of numbers: `{0..11}`, `{0,2}`, `{0..4,6..11}`; with leading zeros one by one."""
    if any(len(number) > 1 and number.startswith("0") for number in numbers):
        return f"{{{','.join(numbers)}}}"
    values = sorted(map(int, numbers))
    parts: list[str] = []
    for _, pairs in groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        run = [str(value) for _, value in pairs]
        parts += [f"{run[0]}..{run[-1]}"] if len(run) >= _LONG else run
    return f"{{{','.join(parts)}}}"
