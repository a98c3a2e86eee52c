"""The comparison as files beside the study: table, figures, plain values."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mimetic.files import write_atomically, write_text
from mimetic.study.comparing.comparison import Comparison, Journaled, finished_curves
from mimetic.study.comparing.rendering import to_markdown


def write_comparison(comparison: Comparison, trials: Sequence[Journaled], folder: Path) -> list[Path]:
    """Write `comparison.json`, `comparison.md` and two figures, and return the files."""
    files = [folder / "comparison.json", folder / "comparison.md"]
    write_text(files[0], json.dumps(comparison.to_dict(), indent=1) + "\n")
    write_text(files[1], to_markdown(comparison))
    if any(row.n for row in comparison.rows):
        files += _figures(comparison, trials, folder)
    return files


def _figures(comparison: Comparison, trials: Sequence[Journaled], folder: Path) -> list[Path]:
    from mimetic.analysis.comparison import comparison_figure
    from mimetic.analysis.curves import curves_figure

    curves = {
        row.arm: finished_curves(trials, arm=row.arm, metric=comparison.metric) for row in comparison.rows
    }
    figures = {
        "comparison": comparison_figure(comparison.to_dict()),
        "curves": curves_figure(curves, metric=comparison.metric, unit=comparison.unit),
    }
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.png", partial(figure.savefig, format="png", dpi=120))
    return [folder / f"{name}.png" for name in figures]
