"""Render a comparison as cells of a table, as Markdown, and as files beside the study."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from mimetic.files import write_atomically, write_text
from mimetic.study.comparing.comparison import Comparison, Row, TrialResult, finished_curves
from mimetic.study.comparing.statistics import half_width

_NONE = "–"


def write_comparison(comparison: Comparison, results: Sequence[TrialResult], folder: Path) -> list[Path]:
    """Write `comparison.json`, `comparison.md` and two figures, and return the files."""
    files = [folder / "comparison.json", folder / "comparison.md"]
    write_text(files[0], json.dumps(comparison.to_dict(), indent=1) + "\n")
    write_text(files[1], to_markdown(comparison))
    if any(row.n for row in comparison.rows):
        files += _write_figures(comparison, results, folder)
    return files


def _write_figures(comparison: Comparison, results: Sequence[TrialResult], folder: Path) -> list[Path]:
    from mimetic.analysis.comparison import comparison_figure
    from mimetic.analysis.curves import Band, curves_figure

    bands = {}
    for row in comparison.rows:
        curves = list(finished_curves(results, arm=row.arm, metric=comparison.metric).values())
        epochs = sorted(set().union(*curves))
        values = [[curve[epoch] for curve in curves if epoch in curve] for epoch in epochs]
        reach = [half_width(v, level=comparison.level) if len(v) > 1 else float("nan") for v in values]
        bands[row.arm] = Band(len(curves), epochs, list(map(fmean, values)), reach)
    heading = f"{comparison.metric.label}: mean over seeds and {comparison.level:.0%} band"
    figures = {
        "comparison": comparison_figure(comparison.to_dict()),
        "curves": curves_figure(bands, label=comparison.metric.label, title=heading),
    }
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.png", partial(figure.savefig, format="png", dpi=120))
    return [folder / f"{name}.png" for name in figures]


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row of cells for each arm.

    Columns: arm, n (of how many trials, if some did not finish), mean ± std over seeds, difference to the
    baseline and its interval, verdict, epochs until the baseline's final mean, wall time.
    """
    header = [
        "arm",
        "n",
        comparison.metric.label,
        f"vs {comparison.baseline}",
        f"{comparison.level:.0%} interval",
        "",
        f"epochs to {comparison.baseline}'s",
        "time",
    ]
    return header, [_cells(row, digits=comparison.metric.decimals) for row in comparison.rows]


def correction_note(comparison: Comparison) -> str:
    """Return how many arms are tested and how the verdicts are corrected; empty if none is tested."""
    count, alpha = comparison.comparisons, 1.0 - comparison.level
    if count == 0:
        return ""
    if count == 1:
        return f"1 comparison with {comparison.baseline}, tested at {alpha:.0%}"
    return f"{count} comparisons with {comparison.baseline}: Holm-corrected, {alpha:.0%} family-wise error"


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table with a legend."""
    header, rows = cells(comparison)
    lines = [_line(header), _line(["---"] + ["---:"] * (len(header) - 1)), *(_line(row) for row in rows)]
    points = "percent points" if comparison.metric.unit == "%" else "the metric's unit"
    better = f"{comparison.metric.direction} is better" if comparison.metric.direction else "no direction"
    legend = (
        f"Mean ± standard deviation over seeds at the last epoch; {better}. Differences are paired by seed, "
        f"in {points}, with Student's interval. Epochs: median over seeds of the first epoch as good as the "
        f"final mean of `{comparison.baseline}`, and how many seeds reached it. Trials that did not finish "
        "are left out."
    )
    note = correction_note(comparison)
    return "\n".join([*lines, "", legend, *([f"{note}."] if note else []), ""])


def duration(seconds: float) -> str:
    """Format seconds for people: `4.5 s`, `48 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    hours, rest_minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest_minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _cells(row: Row, *, digits: int) -> list[str]:
    scatter = f" ± {row.std:.{digits}f}" if row.std is not None else ""
    reached = f"({row.reached}/{row.n})"
    return [
        row.arm,
        str(row.n) if row.n == row.trials else f"{row.n} of {row.trials}",
        _NONE if row.mean is None else f"{row.mean:.{digits}f}{scatter}",
        _NONE if row.difference is None else _signed(row.difference.mean, digits),
        _interval(row, digits=digits),
        row.verdict or "",
        _NONE if row.n == 0 else f"{'not reached' if row.epochs is None else f'{row.epochs:g}'} {reached}",
        _NONE if row.seconds is None else duration(row.seconds),
    ]


def _interval(row: Row, *, digits: int) -> str:
    difference = row.difference
    if difference is None:
        return _NONE
    if difference.low is None or difference.high is None:
        return difference.reason or _NONE
    return f"[{_signed(difference.low, digits)}, {_signed(difference.high, digits)}]"


def _signed(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"
