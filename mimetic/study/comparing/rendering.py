"""Draw a comparison."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from mimetic.analysis.comparison import comparison_figure
from mimetic.analysis.curves import Band, curves_figure
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.results import TrialResult, finished_curves
from mimetic.study.comparing.statistics import half_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(
    comparison: Comparison, results: Sequence[TrialResult]
) -> "dict[str, Callable[[], Figure | None]]":
    """Return functions that draw the figures of a comparison, by name; none if no trial finished."""
    if not any(row.n for row in comparison.rows):
        return {}
    return {
        "comparison": lambda: comparison_figure(comparison.to_dict()),
        "curves": lambda: _curves_figure(comparison, results),
    }


def _curves_figure(comparison: Comparison, results: Sequence[TrialResult]) -> "Figure | None":
    """Draw the metric over epochs; None where no trial has it before its end."""
    bands = {}
    for row in comparison.rows:
        curves = list(finished_curves(results, arm=row.arm, metric=comparison.metric).values())
        epochs = sorted(set().union(*curves))
        values = [[curve[epoch] for curve in curves if epoch in curve] for epoch in epochs]
        reach = [half_width(v, level=comparison.level) if len(v) > 1 else float("nan") for v in values]
        bands[row.arm] = Band(len(curves), epochs, list(map(fmean, values)), reach)
    if not any(band.epochs for band in bands.values()):
        return None
    heading = f"{comparison.metric.label}: mean over seeds and {comparison.level:.0%} band"
    return curves_figure(bands, label=comparison.metric.label, title=heading)
