"""A comparison as text: cells for a table in a terminal, and Markdown."""

from mimetic.study.comparing.comparison import Comparison, Row

_NONE = "–"


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row of cells for each arm.

    Columns: arm, n (of how many trials, where some did not finish), mean ± std over seeds, difference to
    the baseline and its interval, epochs until the baseline's final mean, wall time.
    """
    unit = f" [{comparison.unit}]" if comparison.unit else ""
    header = [
        "arm",
        "n",
        f"{comparison.metric}{unit}",
        f"vs {comparison.baseline}",
        f"{comparison.level:.0%} interval",
        "",
        f"epochs to {comparison.baseline}'s",
        "time",
    ]
    digits = 2 if comparison.unit else 4
    return header, [_cells(row, digits=digits) for row in comparison.rows]


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table with a legend."""
    header, rows = cells(comparison)
    lines = [_line(header), _line(["---"] + ["---:"] * (len(header) - 1)), *(_line(row) for row in rows)]
    points = "percent points" if comparison.unit else "the metric's own units"
    better = "higher" if comparison.higher_is_better else "lower"
    legend = (
        f"Mean ± standard deviation over seeds at the last epoch; {better} is better. Differences are paired "
        f"by seed, in {points}, with Student's {comparison.level:.0%} interval. Epochs: median over seeds of "
        f"the first epoch as good as the final mean of `{comparison.baseline}`, and in brackets how many "
        "seeds reached it. Trials that did not finish are left out."
    )
    return "\n".join([*lines, "", legend, ""])


def _cells(row: Row, *, digits: int) -> list[str]:
    return [
        row.arm,
        str(row.n) if row.n == row.trials else f"{row.n} of {row.trials}",
        _spread(row, digits=digits),
        _NONE if row.difference is None else _signed(row.difference.mean, digits),
        _interval(row, digits=digits),
        "" if row.verdict is None else row.verdict,
        _epochs(row),
        _NONE if row.seconds is None else duration(row.seconds),
    ]


def _spread(row: Row, *, digits: int) -> str:
    if row.mean is None:
        return _NONE
    return f"{row.mean:.{digits}f}" + (f" ± {row.std:.{digits}f}" if row.std is not None else "")


def _interval(row: Row, *, digits: int) -> str:
    difference = row.difference
    if difference is None:
        return _NONE
    if difference.low is None or difference.high is None:
        return _NONE if difference.reason is None else difference.reason
    return f"[{_signed(difference.low, digits)}, {_signed(difference.high, digits)}]"


def _epochs(row: Row) -> str:
    if row.n == 0:
        return _NONE
    reached = f"({row.reached}/{row.n})"
    return f"not reached {reached}" if row.epochs is None else f"{row.epochs:g} {reached}"


def duration(seconds: float) -> str:
    """Return seconds as people read them: `48 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"


def _signed(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"
