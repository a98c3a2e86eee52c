"""The arms of a study side by side, from their journals.

Only trials that finished count, at the last epoch that has the metric. Differences to the baseline are
taken within seeds, over the seeds that finished in both arms. Journals hold accuracies as fractions; here
and in every table they are percent, and their differences percent points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mimetic.analysis.interval import LEVEL
from mimetic.errors import UserError
from mimetic.journal import Event, history, read_journal, status
from mimetic.study.comparing.statistics import (
    Difference,
    epochs_to_reach,
    median_or_never,
    paired_difference,
    summary,
)
from mimetic.study.layout import Trial, read_record

Journaled = tuple[str, int, Sequence[Event]]
"""A trial: arm, seed, events of its journal."""

_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class Row:
    """One arm in the comparison; accuracies in percent.

    Attributes:
        arm: Name of the arm.
        values: Seed → final value of the metric, of trials that finished.
        mean: Mean over seeds; None if no trial finished.
        std: Standard deviation over seeds (n - 1); None below two.
        difference: Paired difference to the baseline; None for the baseline itself.
        verdict: `better`, `worse` or `unclear`, by whether the interval excludes zero; None without one.
        epochs: Median over seeds of the first epoch as good as the baseline's final mean; None if never.
        reached: How many seeds reached it.
        seconds: Mean wall time of training, in seconds.
        statuses: How many trials ended FINISHED, FAILED, KILLED, or stand otherwise.
    """

    arm: str
    values: Mapping[int, float]
    mean: float | None
    std: float | None
    difference: Difference | None
    verdict: str | None
    epochs: float | None
    reached: int
    seconds: float | None
    statuses: Mapping[str, int]

    @property
    def n(self) -> int:
        """Return the number of seeds that count."""
        return len(self.values)

    @property
    def trials(self) -> int:
        """Return the number of trials, whatever became of them."""
        return sum(self.statuses.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """The arms compared by one metric.

    Attributes:
        metric: Name of the metric, e.g. `test/acc`.
        baseline: The arm the others are compared with.
        rows: The arms, in the order of the recipe.
        level: Coverage of the intervals.
    """

    metric: str
    baseline: str
    rows: tuple[Row, ...]
    level: float = LEVEL

    @property
    def higher_is_better(self) -> bool:
        """Tell whether more is better: accuracies yes, losses no."""
        return is_accuracy(self.metric)

    @property
    def unit(self) -> str:
        """Return the unit of means: percent for accuracies, none for losses."""
        return "%" if is_accuracy(self.metric) else ""

    def row(self, arm: str) -> Row:
        """Return the row of an arm."""
        return next(row for row in self.rows if row.arm == arm)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        return {
            "metric": self.metric,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "baseline": self.baseline,
            "level": self.level,
            "arms": [_plain(row) for row in self.rows],
        }

    def metrics(self) -> dict[str, float]:
        """Return the comparison's figures under flat names, e.g. `difference/closed-form`."""
        figures: dict[str, float | None] = {}
        for row in self.rows:
            figures |= {
                f"mean/{row.arm}": row.mean,
                f"std/{row.arm}": row.std,
                f"epochs/{row.arm}": row.epochs,
            }
            if row.difference is not None:
                figures[f"difference/{row.arm}"] = row.difference.mean
                figures[f"difference_low/{row.arm}"] = row.difference.low
                figures[f"difference_high/{row.arm}"] = row.difference.high
        return {name: value for name, value in figures.items() if value is not None}


def compare(trials: Sequence[Journaled], *, baseline: str, metric: str) -> Comparison:
    """Compare arms by a metric.

    Args:
        trials: Arm, seed and journal of each trial; arms keep the order they come in.
        baseline: The arm the others are compared with.
        metric: Name of the metric, e.g. `test/acc`.

    Raises:
        UserError: If no trial is of the baseline.
    """
    arms = list(dict.fromkeys(arm for arm, _, _ in trials))
    if baseline not in arms:
        names = ", ".join(f"`{arm}`" for arm in arms)
        raise UserError(f"no arm is called `{baseline}`, so nothing can be compared with it; arms: {names}")
    curves = {arm: finished_curves(trials, arm=arm, metric=metric) for arm in arms}
    finals = {arm: {seed: _last(curve) for seed, curve in curves[arm].items()} for arm in arms}
    target = summary(list(finals[baseline].values())).mean
    rows = [
        _row(
            arm,
            finals=finals[arm],
            partners=None if arm == baseline else finals[baseline],
            epochs=_epochs(curves[arm], target, metric),
            journals_of_arm=[events for name, _, events in trials if name == arm],
            metric=metric,
        )
        for arm in arms
    ]
    return Comparison(metric, baseline, tuple(rows))


def of_study(folder: Path, *, metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Compare the arms of a study on the disk, by its own metric and baseline unless given.

    Raises:
        UserError: If the folder is no study, or it has no such arm or metric.
    """
    record = read_record(folder)
    trials = journals(folder, record)
    wanted = record["metric"] if metric is None else metric
    known = {name for _, _, events in trials for name in history(events)}
    if known and wanted not in known:
        there = ", ".join(f"`{name}`" for name in sorted(known))
        raise UserError(f"{folder}: no trial has the metric `{wanted}`; there are {there}")
    return compare(trials, baseline=record["baseline"] if baseline is None else baseline, metric=wanted)


def journals(folder: Path, record: Mapping[str, Any]) -> list[Journaled]:
    """Return arm, seed and journal of every trial of a study."""
    return [
        (arm, seed, read_journal(Trial(str(folder), arm, seed).journal))
        for arm in record["arms"]
        for seed in record["seeds"]
    ]


def finished_curves(trials: Sequence[Journaled], *, arm: str, metric: str) -> dict[int, dict[int, float]]:
    """Return seed → epoch → value of a metric, of an arm's trials that finished; accuracies in percent."""
    factor = _PERCENT if is_accuracy(metric) else 1.0
    curves = {
        seed: {epoch: factor * value for epoch, value in history(events).get(metric, {}).items()}
        for name, seed, events in trials
        if name == arm and status(events) == "FINISHED"
    }
    return {seed: curve for seed, curve in curves.items() if curve}


def is_accuracy(metric: str) -> bool:
    """Tell whether a metric is an accuracy: a fraction in journals, percent in tables."""
    return metric.rpartition("/")[2].partition("_")[0] == "acc"


def _row(
    arm: str,
    *,
    finals: Mapping[int, float],
    partners: Mapping[int, float] | None,
    epochs: Sequence[int | None],
    journals_of_arm: Sequence[Sequence[Event]],
    metric: str,
) -> Row:
    whole = summary(list(finals.values()))
    difference = None
    if partners is not None:
        shared = [seed for seed in finals if seed in partners]
        difference = paired_difference([finals[s] for s in shared], [partners[s] for s in shared])
    ended = [status(events) for events in journals_of_arm]
    times = [_seconds(e) for e, how in zip(journals_of_arm, ended, strict=True) if how == "FINISHED"]
    return Row(
        arm=arm,
        values=dict(finals),
        mean=whole.mean,
        std=whole.std,
        difference=difference,
        verdict=_verdict(difference, higher_is_better=is_accuracy(metric)),
        epochs=median_or_never(epochs),
        reached=sum(epoch is not None for epoch in epochs),
        seconds=summary([time for time in times if time is not None]).mean,
        statuses={how: ended.count(how) for how in sorted(set(ended))},
    )


def _epochs(curves: Mapping[int, Mapping[int, float]], target: float | None, metric: str) -> list[int | None]:
    if target is None:
        return []
    better = is_accuracy(metric)
    return [epochs_to_reach(curve, target, higher_is_better=better) for curve in curves.values()]


def _verdict(difference: Difference | None, *, higher_is_better: bool) -> str | None:
    if difference is None or difference.low is None or difference.high is None:
        return None
    if difference.low <= 0.0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0.0) == higher_is_better else "worse"


def _seconds(events: Sequence[Event]) -> float | None:
    """Return the time a trial trained: of its epochs, each counted once however often it was resumed."""
    epochs = history(events).get("epoch_seconds", {})
    if epochs:
        return sum(epochs.values())
    return next(
        (e["seconds"] for e in reversed(events) if e["event"] == "end" and e.get("seconds") is not None), None
    )


def _last(curve: Mapping[int, float]) -> float:
    return curve[max(curve)]


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row)
    values["values"] = {str(seed): value for seed, value in row.values.items()}
    return {"arm": row.arm, "n": row.n, **values}
