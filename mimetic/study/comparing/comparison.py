"""Compare the arms of a study by the final values of a metric.

Only finished trials count, at the last epoch that has the metric. Differences to the baseline are taken
within seeds, over the seeds that finished in both arms. Values are in the metric's display unit: journals
have accuracies as fractions, comparisons have them in percent and their differences in percent points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.files import JsonObject, check_contained
from mimetic.journal import Event, Status, history, read_journal, status
from mimetic.metrics import Metric
from mimetic.metrics import metric as metric_of
from mimetic.study.comparing.statistics import (
    LEVEL,
    Difference,
    corrected_differences,
    epochs_to_reach,
    mean,
    median_or_never,
    std,
)
from mimetic.study.layout import Trial, read_record

Curve = Mapping[int, float]
"""Epoch → value."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a trial, as its journal holds it.

    Curves are metric → epoch → logged value; `seconds` is the wall time of training, None if unknown.
    """

    arm: str
    seed: int
    status: Status
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One arm in a comparison, in the metric's display unit.

    Attributes:
        arm: Name of the arm.
        values: Seed → final value of the metric, of finished trials.
        mean: Mean over seeds; None if no trial finished.
        std: Standard deviation over seeds (n - 1); None below two.
        difference: Paired difference to the baseline; None for the baseline itself.
        verdict: `better`, `worse` or `inconclusive`, by Holm's corrected test; `higher` or `lower` for a
            metric without a direction; None if there is no test.
        epochs: Median over seeds of the first epoch as good as the baseline's final mean; None if never.
        reached: How many seeds reached it.
        seconds: Mean wall time of training, in seconds.
        statuses: Status → number of trials.
    """

    arm: str
    values: Curve
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
        """Return the number of trials of any status."""
        return sum(self.statuses.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """The arms compared by one metric.

    Rows are in the order of the recipe. `level` is the coverage of the intervals; 1 - level is the
    family-wise error rate of the verdicts.
    """

    metric: Metric
    baseline: str
    rows: tuple[Row, ...]
    level: float = LEVEL

    @property
    def comparisons(self) -> int:
        """Return the number of arms tested against the baseline."""
        return sum(row.difference is not None and row.difference.p is not None for row in self.rows)

    def row(self, arm: str) -> Row:
        """Return the row of an arm."""
        return next(row for row in self.rows if row.arm == arm)

    def to_dict(self) -> JsonObject:
        """Return plain values that JSON can hold."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "direction": self.metric.direction,
            "baseline": self.baseline,
            "level": self.level,
            "comparisons": self.comparisons,
            "arms": [
                {"n": row.n, **asdict(row), "values": {str(seed): x for seed, x in row.values.items()}}
                for row in self.rows
            ],
        }

    def metrics(self) -> dict[str, float]:
        """Return the numbers under flat names, e.g. `difference/closed-form`; missing ones are left out."""
        found: dict[str, float | None] = {}
        for row in self.rows:
            numbers = {"mean": row.mean, "std": row.std, "epochs": row.epochs}
            if row.difference is not None:
                numbers["difference"] = row.difference.mean
                numbers["difference_low"] = row.difference.low
                numbers["difference_high"] = row.difference.high
                numbers["difference_p_holm"] = row.difference.p_holm
            found |= {f"{name}/{row.arm}": value for name, value in numbers.items()}
        return {name: value for name, value in found.items() if value is not None}


def compare(
    results: Sequence[TrialResult], *, baseline: str, metric: str, level: float = LEVEL
) -> Comparison:
    """Compare arms by a metric.

    Arms keep the order in which they appear; 1 - level is the family-wise error rate of the verdicts.

    Raises:
        UserError: If no trial is of the baseline.
    """
    arms = list(dict.fromkeys(result.arm for result in results))
    if baseline not in arms:
        raise UserError(
            f"there is no arm `{baseline}` to compare with; arms: {listed(arms)}", code="MIM-Y001"
        )
    definition = metric_of(metric)
    curves = {arm: finished_curves(results, arm=arm, metric=definition) for arm in arms}
    finals = {arm: {seed: curve[max(curve)] for seed, curve in curves[arm].items()} for arm in arms}
    differences = corrected_differences(
        {arm: _paired(finals[arm], finals[baseline]) for arm in arms if arm != baseline}, level=level
    )
    target = mean(list(finals[baseline].values()))
    rows = []
    for arm in arms:
        own = [result for result in results if result.arm == arm]
        ended = [result.status for result in own]
        times = [r.seconds for r in own if r.status == "FINISHED" and r.seconds is not None]
        epochs = _epochs(curves[arm].values(), target, definition)
        rows.append(
            Row(
                arm=arm,
                values=finals[arm],
                mean=mean(list(finals[arm].values())),
                std=std(list(finals[arm].values())),
                difference=differences.get(arm),
                verdict=_verdict(differences.get(arm), definition, alpha=1.0 - level),
                epochs=median_or_never(epochs),
                reached=sum(epoch is not None for epoch in epochs),
                seconds=mean(times),
                statuses={how: ended.count(how) for how in sorted(set(ended))},
            )
        )
    return Comparison(definition, baseline, tuple(rows), level)


def of_study(folder: Path, *, metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Compare the arms of a study on the disk, by its own metric and baseline unless given.

    Raises:
        UserError: If the folder holds no study, or the study has no such arm or metric.
    """
    record = read_record(folder)
    check_contained(folder)
    results = [
        read_result(Trial(str(folder), arm, seed)) for arm in record["arms"] for seed in record["seeds"]
    ]
    chosen = record["metric"] if metric is None else metric
    logged = {name for result in results for name in result.curves}
    if logged and chosen not in logged:
        names = listed(sorted(logged))
        raise UserError(f"{folder}: no trial has the metric `{chosen}`; there are {names}", code="MIM-Y002")
    return compare(results, baseline=record["baseline"] if baseline is None else baseline, metric=chosen)


def read_result(trial: Trial) -> TrialResult:
    """Read the result of a trial from its journal."""
    return trial_result(trial.arm, trial.seed, read_journal(trial.journal))


def trial_result(arm: str, seed: int, events: Sequence[Event]) -> TrialResult:
    """Return the result that a journal's events amount to."""
    curves = history(events)
    if "epoch_seconds" in curves:  # an epoch counts once, however often the trial was resumed
        seconds: float | None = sum(curves["epoch_seconds"].values())
    else:
        ends = [event.get("seconds") for event in events if event["event"] == "end"]
        seconds = ends[-1] if ends else None
    return TrialResult(arm, seed, status(events), curves, seconds)


def finished_curves(results: Iterable[TrialResult], *, arm: str, metric: Metric) -> dict[int, Curve]:
    """Return seed → epoch → displayed value of a metric, of an arm's finished trials that have it."""
    return {
        result.seed: {e: metric.factor * value for e, value in result.curves[metric.name].items()}
        for result in results
        if result.arm == arm and result.status == "FINISHED" and result.curves.get(metric.name)
    }


def _paired(values: Curve, others: Curve) -> tuple[list[float], list[float]]:
    seeds = [seed for seed in values if seed in others]
    return [values[seed] for seed in seeds], [others[seed] for seed in seeds]


def _epochs(curves: Iterable[Curve], target: float | None, metric: Metric) -> list[int | None]:
    if target is None or metric.direction is None:
        return []
    return [epochs_to_reach(curve, target, higher_is_better=metric.higher_is_better) for curve in curves]


def _verdict(difference: Difference | None, metric: Metric, *, alpha: float) -> str | None:
    if difference is None or difference.mean is None or difference.p_holm is None:
        return None
    if difference.p_holm > alpha:
        return "inconclusive"
    is_higher = difference.mean > 0.0
    if metric.direction is None:
        return "higher" if is_higher else "lower"
    return "better" if is_higher == metric.higher_is_better else "worse"
