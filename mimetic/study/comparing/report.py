"""Write studies as one HTML page that needs no other file; all foreign text is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mimetic.files import JsonObject, check_contained, parse_json, read_regular
from mimetic.printable import plain_html
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.rendering import figures
from mimetic.study.comparing.results import TrialResult
from mimetic.study.comparing.tables import headline, legend, table_of
from mimetic.study.record import read_record
from mimetic.tables import NONE, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"
"""File of a study's page, in its folder and among the artifacts of its summary run."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5d9de; --faint: #5b646e; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --paper: #14171a; --line: #3a4047; --faint: #a0a8b0; }
}
body { margin: 2rem auto; max-width: 74rem; padding: 0 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.text td, .text th { white-space: normal; overflow-wrap: anywhere; }
p { max-width: 60rem; } .note { color: var(--faint); font-size: .9em; }
img { max-width: 100%; background: #fff; border-radius: 4px; } figure { margin: 1rem 0; break-inside: avoid; }
@media (max-width: 50rem) {
  body { margin: .5rem auto; padding: 0 .5rem; font-size: 13px; }
  h1 { font-size: 1.2rem; } h2 { margin: 1rem 0 .3rem; } th, td { padding: .15rem .2rem; }
  table { font-size: 12px; } th { white-space: normal; vertical-align: bottom; }
}
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page may load nothing and run nothing, whatever is in it."""


def report(
    comparisons: Sequence[Comparison],
    studies: Mapping[Path, Sequence[TrialResult]],
    *,
    drawn: Mapping[str, bytes] | None = None,
) -> str:
    """Return a page of comparisons, and of each study its curves, plans, filters and environment.

    It starts with the result in a sentence, the first table and the first figure. `drawn` has the PNG files
    of the figures of a single study by name, if they exist already.
    """
    title = ", ".join(folder.resolve().parent.name for folder in studies)
    pictures: list[str] = []
    if len(studies) == 1:
        results = next(iter(studies.values()))
        content = _drawn(comparisons[0], results) if drawn is None else drawn
        pictures = [_image(png, f"{kind} of {title}") for kind, png in content.items()]
    parts = [f"<h1>{plain_html(headline(comparisons[0]))}</h1>"]
    for comparison in comparisons:
        table = table_of(comparison)
        parts += [_section(table), *pictures[:1]]
        notes = " ".join((*legend(comparison), *(f"{note}." for note in table.notes)))
        parts.append(f'<p class="note">{plain_html(notes)}</p>')
        parts += [_section(seed_table(comparison)), *pictures[1:]]
        pictures = []
    for folder in studies:
        parts += _study(comparisons[0], folder)
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{plain_html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def seed_table(comparison: Comparison) -> Table:
    """Return the value of each seed: one row for each arm."""
    keys = list(dict.fromkeys(key for row in comparison.rows for key in row.values))
    names = tuple(f"seed {key}" if isinstance(key, int) else f"{key[0]}, seed {key[1]}" for key in keys)
    digits = comparison.metric.decimals
    rows = []
    for row in comparison.rows:
        values = {key: f"{value:.{digits}f}" for key, value in row.values.items()}
        rows.append((row.arm, *(values.get(key, NONE) for key in keys)))
    return Table(f"{comparison.metric.label} of each seed", ("arm", *names), tuple(rows))


def plan_table(folder: Path, baseline: str, arm: str) -> Table | None:
    """Return the parameters that two arms initialize differently, as their plans were written.

    None if a plan is missing or they are equal.
    """
    left, right = _plan(folder / baseline), _plan(folder / arm)
    if left is None or right is None:
        return None
    names = [name for name in dict.fromkeys((*left, *right)) if left.get(name) != right.get(name)]
    rows = tuple((name, left.get(name, "absent"), right.get(name, "absent")) for name in names)
    title = f"Plans of {baseline} and {arm}"
    return Table(title, ("parameter", baseline, arm), rows, left=3).collapsed() if rows else None


def _plan(folder: Path) -> dict[str, str] | None:
    """Return parameter → initializer, arguments and whether it is frozen."""
    try:
        entries = parse_json(read_regular(folder / "plan.json"))["entries"]
        return {str(entry["parameter"]): _initializer(entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _initializer(entry: JsonObject) -> str:
    arguments = ", ".join(f"{name}: {value}" for name, value in entry["arguments"].items())
    frozen = ", frozen" if entry["frozen"] else ""
    return f"{entry['initializer']}({arguments}){frozen}" if entry["rule"] else f"model's own{frozen}"


def _drawn(comparison: Comparison, results: Sequence[TrialResult]) -> dict[str, bytes]:
    """Draw the figures of a comparison."""
    drawn = {name: draw() for name, draw in figures(comparison, results).items()}
    return {name: _png(figure) for name, figure in drawn.items() if figure is not None}


def _study(comparison: Comparison, folder: Path) -> list[str]:
    """Return the sections of one study."""
    record, name = read_record(folder), folder.resolve().parent.name
    check_contained(folder)
    parts = [f"<h2>Study {plain_html(f'{name}/{folder.resolve().name}')}</h2>"]
    tables = (plan_table(folder, comparison.baseline, a) for a in record.arms if a != comparison.baseline)
    parts += [_section(table, kind="text") for table in tables if table is not None]
    for arm in record.arms:
        for moment in ("start", "end"):
            path = folder / arm / f"seed-{record.seeds[0]}" / "pictures" / f"filters-{moment}.png"
            if path.is_file():
                label = f"Filters of {arm} at the {moment}, seed {record.seeds[0]}"
                parts.append(_image(read_regular(path), label))
    rows = tuple(sorted({**record.data, **record.environment}.items()))
    if rows:
        parts.append(_section(Table("Data and environment", ("name", "value"), rows, left=2), kind="text"))
    return parts


def _section(table: Table, *, kind: str = "") -> str:
    """Return a table with its title."""
    return f'<h2>{plain_html(table.title)}</h2>\n<div class="table {kind}">{table.html()}</div>'


def _image(content: bytes, label: str) -> str:
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{plain_html(label)}">'
        f'<figcaption class="note">{plain_html(label)}</figcaption></figure>'
    )


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
