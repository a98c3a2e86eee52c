"""Write tables as Markdown, LaTeX and comma-separated values; foreign text cannot end a cell."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

from mimetic.printable import printable
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.tables import legend, records, table_of
from mimetic.tables import Table


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as Markdown tables, each with a legend."""
    parts = []
    for comparison in comparisons:
        table = table_of(comparison)
        about = (" ".join(legend(comparison)), *(f"{note}." for note in table.notes))
        parts.append("\n".join([markdown_table(table), "", *(_escaped(text, _MARKDOWN) for text in about)]))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table as Markdown."""
    rule = ["---"] + ["---:"] * (len(table.header) - 1)
    rows = [rule, *([_escaped(cell, _MARKDOWN) for cell in row] for row in table.rows)]
    header = [_escaped(cell, _MARKDOWN) for cell in table.header]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, *rows))


def latex(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as LaTeX tables, which need the package `booktabs`."""
    parts = []
    for comparison in comparisons:
        table = table_of(comparison)
        about = [*legend(comparison), *(f"{note}." for note in table.notes)]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            _latex_row(table.header),
            r"\midrule",
            *map(_latex_row, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_escaped(' '.join(about), _LATEX)}}}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def comma_separated(comparisons: Sequence[Comparison]) -> str:
    """Return one line of plain numbers for each metric and arm, below a header; what is missing is empty."""
    lines = records(comparisons)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


FORMATS = {"md": markdown, "latex": latex, "csv": comma_separated}
"""Name of a format → its renderer."""


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_escaped(cell, _LATEX) for cell in cells) + r" \\"


_MARKDOWN = {special: f"\\{special}" for special in ("\\", "|", "`", "*", "_", "<", "](")}
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "√": r"$\surd$",
}


def _escaped(text: str, characters: Mapping[str, str]) -> str:
    """Return a text with the characters that mean something in a format escaped."""
    pattern = "|".join(map(re.escape, characters))
    return re.sub(pattern, lambda found: characters[found[0]], printable(text).replace("\n", " "))
