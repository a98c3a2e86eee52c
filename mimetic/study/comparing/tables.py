"""Build the table of a comparison as data, for every format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mimetic.study.comparing.rows import Row
from mimetic.study.comparing.statistics import POWER
from mimetic.tables import NONE, Table, number

if TYPE_CHECKING:
    from mimetic.study.comparing.outcome import Comparison


def table_of(comparison: "Comparison") -> Table:
    """Return the table of a comparison: one row for each arm.

    Columns that no arm has a value for are left out, but for those of the differences.
    """
    columns = _columns(comparison)
    header = [name for name, _, _ in columns]
    rows = [[cell(row) for _, cell, _ in columns] for row in comparison.rows]
    order = sorted((rank, name) for name, _, rank in columns if rank > 0)
    return Table(
        comparison.metric.label,
        tuple(header),
        tuple(map(tuple, rows)),
        (*correction_note(comparison), *halving_note(comparison), *reuse_note(comparison)),
        tuple(name for _, name in order),
    ).without_empty()


Column = tuple[str, Callable[[Row], str], int]
"""Name, cell of a row, and rank among the columns to leave out: 1 goes first, 0 stays."""


def _columns(comparison: "Comparison") -> list[Column]:
    digits, baseline = comparison.metric.decimals, comparison.baseline
    label = comparison.metric.label
    columns: list[Column] = [
        ("arm", lambda row: row.arm, 0),
        ("n", lambda row: str(row.n) if row.n == row.trials else f"{row.n} of {row.trials}", 0),
        (f"IQM {label}" if comparison.data_sets else label, lambda row: _center(row, digits), 0),
        (f"vs {baseline}", lambda row: _mean(row, digits), 0),
        (f"{comparison.level:.0%} interval", lambda row: _interval(row, digits=digits), 0),
        ("", lambda row: row.verdict or "", 0),
        ("P(better)", lambda row: number(row.improvement, 2), 4),
        ("detectable", lambda row: number(row.detectable, digits), 3),
    ]
    if comparison.detect is not None:
        columns.append((f"seeds for {comparison.detect:g}", _needed, 5))
    if comparison.horizon is not None:
        columns.append(("reached", lambda row: f"{row.reached}/{row.n}", 2))
    elif not comparison.data_sets:
        columns.append((f"epochs to {baseline}'s", lambda row: _epochs(row, baseline), 2))
    columns.append(("time", lambda row: NONE if row.seconds is None else duration(row.seconds), 1))
    return columns


def headline(comparison: "Comparison") -> str:
    """Return the result in a sentence: which arms are better and which are worse."""
    verdicts = {row.arm: row.verdict for row in comparison.rows}
    return headline_of(comparison.metric.name, comparison.baseline, verdicts)


def headline_of(metric: str, baseline: str, verdicts: Mapping[str, str | None]) -> str:
    """Return the result in a sentence; `verdicts` is arm → verdict."""
    found = {
        verdict: [arm for arm, own in verdicts.items() if own == verdict]
        for verdict in ("better", "worse", "higher", "lower")
    }
    parts = [f"{verdict}: {', '.join(arms)}" for verdict, arms in found.items() if arms]
    return f"{metric}, compared with {baseline}: {'; '.join(parts) if parts else 'inconclusive'}."


def page_of(comparison: "Comparison") -> str:
    """Return the table below the result in a sentence, as a fragment of HTML."""
    return replace(table_of(comparison), title=headline(comparison)).page()


def correction_note(comparison: "Comparison") -> list[str]:
    """Return how many tests there are and how the verdicts are corrected; nothing if none is tested."""
    count, alpha = comparison.comparisons, 1.0 - comparison.level
    if count == 0:
        return []
    if count == 1:
        return [f"1 comparison with {comparison.baseline}, tested at {alpha:.0%}"]
    return [f"{count} comparisons with {comparison.baseline}: Holm-corrected, {alpha:.0%} family-wise error"]


def halving_note(comparison: "Comparison") -> list[str]:
    """Return which arms successive halving stopped, when and why."""
    arms = [
        f"{row.arm} after {row.stopped.seeds} ({row.stopped.metric} {row.stopped.mean:.4g})"
        for row in comparison.rows
        if row.stopped is not None
    ]
    if not arms:
        return []
    return [f"Stopped early, after so many seeds, and counted as comparisons: {', '.join(arms)}"]


def reuse_note(comparison: "Comparison") -> list[str]:
    """Return how many trials were copied instead of trained, and from which arms of which studies."""
    origins = [origin.rpartition("/")[0] for row in comparison.rows for origin in row.reused]
    counts = ", ".join(f"{origins.count(origin)} from {origin}" for origin in dict.fromkeys(origins))
    return [f"Reused trials: {counts}"] if counts else []


def legend(comparison: "Comparison") -> list[str]:
    """Return what the columns mean, in sentences."""
    unit, direction = comparison.metric.unit, comparison.metric.direction
    points = "percent points" if unit == "%" else "the metric's unit"
    better = f"{direction} is better" if direction else "no direction"
    epoch = "the last epoch" if comparison.epoch == "last" else "the epoch that is best on validation data"
    if comparison.horizon is not None:
        horizon = number(comparison.horizon, comparison.metric.decimals)
        of = f"each trial's cost; one that does not reach the target counts as {horizon}"
    else:
        of = f"values at {epoch}"
    if comparison.data_sets:
        names = ", ".join(comparison.data_sets)
        text = (
            f"Interquartile mean with its interval over seeds and {len(comparison.data_sets)} data sets "
            f"({names}), of {of}; {better}. Differences are interquartile means of differences paired by "
            f"data set and seed, in {points}, with the interval of a stratified bootstrap."
        )
    else:
        text = (
            f"Mean ± standard deviation over seeds, of {of}; {better}. Differences are paired by seed, in "
            f"{points}, with Student's interval. Detectable: the difference that this number of seeds finds "
            f"with a probability of {POWER:.0%}."
        )
    sentences = [text]
    if comparison.horizon is None and not comparison.data_sets:
        sentences.append(
            "Epochs: median over seeds of the first epoch as good as the final mean of "
            f"{comparison.baseline}, and how many seeds reached it."
        )
    sentences.append("P(better): probability that a trial is better than one of the baseline.")
    sentences.append("Trials that did not finish are left out.")
    return sentences


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


def records(comparisons: "Sequence[Comparison]") -> list[dict[str, object]]:
    """Return one flat record of numbers for each metric and arm: the lines of a CSV file."""
    found: list[dict[str, object]] = []
    for comparison in comparisons:
        for row in comparison.rows:
            own = row.difference
            found.append(
                {
                    "metric": comparison.metric.name,
                    "unit": comparison.metric.unit,
                    "arm": row.arm,
                    "n": row.n,
                    "trials": row.trials,
                    "mean": row.mean,
                    "std": row.std,
                    "mean_low": None if row.interval is None else row.interval[0],
                    "mean_high": None if row.interval is None else row.interval[1],
                    "baseline": comparison.baseline,
                    **{
                        f"difference{suffix}": None if own is None else getattr(own, name)
                        for suffix, name in _DIFFERENCE.items()
                    },
                    "comparisons": comparison.comparisons,
                    "verdict": row.verdict,
                    "improvement": row.improvement,
                    "detectable": row.detectable,
                    "needed": row.needed,
                    "epochs": row.epochs,
                    "reached": row.reached,
                    "seconds": row.seconds,
                }
            )
    return found


_DIFFERENCE = {"": "mean", "_low": "low", "_high": "high", "_level": "level", "_p": "p", "_p_holm": "p_holm"}


def _center(row: Row, digits: int) -> str:
    if row.mean is None:
        return NONE
    if row.interval is not None:
        return f"{row.mean:.{digits}f} [{row.interval[0]:.{digits}f}, {row.interval[1]:.{digits}f}]"
    return f"{row.mean:.{digits}f}" + (f" ± {row.std:.{digits}f}" if row.std is not None else "")


def _mean(row: Row, digits: int) -> str:
    return NONE if row.difference is None else _signed(row.difference.mean, digits)


def _interval(row: Row, *, digits: int) -> str:
    difference = row.difference
    if difference is None:
        return NONE
    if difference.low is None or difference.high is None:
        return difference.reason or NONE
    return f"[{_signed(difference.low, digits)}, {_signed(difference.high, digits)}]"


def _epochs(row: Row, baseline: str) -> str:
    """Return when an arm was as good as the baseline in the end; the baseline's own seeds may never be."""
    if row.n == 0 or (row.arm == baseline and row.epochs is None):
        return NONE
    return f"{'not reached' if row.epochs is None else f'{row.epochs:g}'} ({row.reached}/{row.n})"


def _needed(row: Row) -> str:
    """Return how many seeds are needed, and how many more than there are."""
    if row.needed is None:
        return NONE if row.detectable is None else "over 10000"
    assert row.difference is not None
    return f"{row.needed} (+{max(0, row.needed - row.difference.n)})"


def _signed(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")
