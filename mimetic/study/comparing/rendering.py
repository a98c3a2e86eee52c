"""Draw a comparison, and write it as files beside the study."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from mimetic.files import write_atomically, write_text
from mimetic.study.comparing.comparison import Comparison, TrialResult, finished_curves
from mimetic.study.comparing.formats import markdown
from mimetic.study.comparing.statistics import half_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_comparison(comparison: Comparison, results: Sequence[TrialResult], folder: Path) -> list[Path]:
    """Write `comparison.json`, `comparison.md` and two figures, and return the files."""
    files = [folder / "comparison.json", folder / "comparison.md"]
    write_text(files[0], json.dumps(comparison.to_dict(), indent=1) + "\n")
    write_text(files[1], markdown([comparison]))
    for name, figure in figures(comparison, results).items():
        files.append(folder / f"{name}.png")
        write_atomically(files[-1], partial(figure.savefig, format="png", dpi=120))
    return files


def figures(comparison: Comparison, results: Sequence[TrialResult]) -> "dict[str, Figure]":
    """Return the figures of a comparison by name; none if no trial finished."""
    if not any(row.n for row in comparison.rows):
        return {}
    from mimetic.analysis.comparison import comparison_figure
    from mimetic.analysis.curves import Band, curves_figure

    bands = {}
    for row in comparison.rows:
        curves = list(finished_curves(results, arm=row.arm, metric=comparison.metric).values())
        epochs = sorted(set().union(*curves))
        values = [[curve[epoch] for curve in curves if epoch in curve] for epoch in epochs]
        reach = [half_width(v, level=comparison.level) if len(v) > 1 else float("nan") for v in values]
        bands[row.arm] = Band(len(curves), epochs, list(map(fmean, values)), reach)
    found = {"comparison": comparison_figure(comparison.to_dict())}
    if any(band.epochs for band in bands.values()):
        heading = f"{comparison.metric.label}: mean over seeds and {comparison.level:.0%} band"
        found["curves"] = curves_figure(bands, label=comparison.metric.label, title=heading)
    return found
