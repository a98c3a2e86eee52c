"""What is compared: the values of a metric, or what it costs to reach a target."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mimetic.errors import UserError
from mimetic.metrics import Metric, metric_name
from mimetic.metrics import metric as metric_of
from mimetic.study.comparing.results import Curve, Stopped, TrialResult, finished_curves
from mimetic.study.comparing.statistics import LEVEL, epochs_to_reach, mean, median_or_never

Strata = Mapping[str, Mapping[int, float]]
"""Data set → seed → value; a single data set has any name."""

Epoch = Literal["last", "best"]
"""Which epoch of a trial counts: the last, or the best on validation data."""

Cost = Literal["epochs", "steps", "seconds"]
"""What it costs to reach a target is counted in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to compare, and how.

    Attributes:
        metrics: Names of the metrics; each gives a comparison, all of them corrected together. Without any,
            `of_studies` takes the studies' own.
        baseline: The arm that the others are compared with; likewise the studies' own if empty.
        epoch: Which epoch of each trial counts.
        target: Also compare what it costs to reach this value of the first metric, in its display unit.
        to: What that cost is counted in.
        detect: Also return how many seeds would detect a difference of this size, in the display unit.
        level: Coverage of the intervals; 1 - level is the family-wise error rate of the verdicts.
        stopped: The arms that successive halving stopped. They have no verdict, and count in the correction:
            whatever was stopped, the others' verdicts are wrong with a probability of at most 1 - level.
    """

    metrics: tuple[str, ...] = ()
    baseline: str = ""
    epoch: Epoch = "last"
    target: float | None = None
    to: Cost = "epochs"
    detect: float | None = None
    level: float = LEVEL
    stopped: Mapping[str, Stopped] = field(default_factory=dict)


DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table shows of an arm beside the values that are tested; see `Row`."""

    statuses: Mapping[str, int]
    seconds: float | None = None
    epochs: float | None = None
    reached: int = 0
    reused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A metric, and arm → data set → seed → value: what a comparison answers."""

    metric: Metric
    values: Mapping[str, Strata]
    facts: Mapping[str, Facts]
    horizon: float | None = None

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Return the names of the data sets, if there are several."""
        names = tuple(dict.fromkeys(name for strata in self.values.values() for name in strata))
        return names if len(names) > 1 else ()


def metric_question(
    studies: Mapping[str, Sequence[TrialResult]], metric: Metric, options: Options
) -> Question:
    """Return the values of a metric at the epoch that counts, with what else the table shows."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for name, results in studies.items():
        for arm in dict.fromkeys(result.arm for result in results):
            curves = finished_curves(results, arm=arm, metric=metric)
            best = _best_epochs(results, arm, metric) if options.epoch == "best" else {}
            values.setdefault(arm, {})[name] = {
                seed: curve[best.get(seed, max(curve))] for seed, curve in curves.items()
            }
    every = [result for results in studies.values() for result in results]
    target = mean(list(values[options.baseline][next(iter(studies))].values())) if len(studies) == 1 else None
    facts = {}
    for arm in values:
        epochs = _epochs(finished_curves(every, arm=arm, metric=metric).values(), target, metric)
        reached = sum(epoch is not None for epoch in epochs)
        facts[arm] = replace(_facts(every, arm), epochs=median_or_never(epochs), reached=reached)
    return Question(metric, values, facts)


def _facts(results: Sequence[TrialResult], arm: str) -> Facts:
    own = [result for result in results if result.arm == arm]
    ended = [result.status for result in own]
    times = [r.seconds for r in own if r.status == "FINISHED" and r.seconds is not None]
    reused = tuple(result.origin for result in own if result.origin is not None)
    return Facts({how: ended.count(how) for how in sorted(set(ended))}, mean(times), reused=reused)


def _best_epochs(results: Sequence[TrialResult], arm: str, metric: Metric) -> dict[int, int]:
    """Return seed → the epoch that is best on validation data, among those that have the metric.

    Raises:
        UserError: If nothing was measured on validation data.
    """
    chosen = metric_of(metric_name("val", "loss" if metric.is_loss else "acc"))
    wanted = finished_curves(results, arm=arm, metric=metric)
    found = {}
    for seed, curve in finished_curves(results, arm=arm, metric=chosen).items():
        epochs = [epoch for epoch in curve if epoch in wanted.get(seed, {})]
        if epochs:
            sign = 1.0 if chosen.higher_is_better else -1.0
            found[seed] = max(epochs, key=lambda epoch: sign * curve[epoch])
    if missing := sorted(set(wanted) - set(found)):
        raise UserError(
            f"arm `{arm}`, seed {missing[0]} has no `{chosen.name}` to choose the best epoch by; set "
            "`data.val_size` in the recipe, or compare the last epoch",
            code="MIM-Y005",
        )
    return found


def cost_question(studies: Mapping[str, Sequence[TrialResult]], options: Options, target: float) -> Question:
    """Return what it costs each trial to reach a target, at most the shortest trial's whole cost.

    The mean of costs restricted to a common horizon is defined although some trials never get there.

    Raises:
        UserError: If the metric has no direction, or a trial lacks what the cost is counted in.
    """
    metric = metric_of(options.metrics[0])
    if metric.direction is None:
        raise UserError(
            f"`{metric.name}` has no direction, so no target can be reached; choose an accuracy or a loss",
            code="MIM-Y006",
        )
    every = [r for results in studies.values() for r in results if r.status == "FINISHED"]
    paths = {id(r): _costs(r, options.to) for r in every if r.curves.get(metric.name)}
    horizon = min((max(path.values()) for path in paths.values()), default=0.0)
    values: dict[str, dict[str, dict[int, float]]] = {}
    reached = dict.fromkeys((r.arm for results in studies.values() for r in results), 0)
    for name, results in studies.items():
        for result in results:
            own = values.setdefault(result.arm, {}).setdefault(name, {})
            if id(result) not in paths:
                continue
            curve = {e: metric.factor * x for e, x in result.curves[metric.name].items()}
            epoch = epochs_to_reach(curve, target, higher_is_better=metric.higher_is_better)
            cost = horizon if epoch is None else min(horizon, paths[id(result)][epoch])
            reached[result.arm] += epoch is not None and paths[id(result)][epoch] <= horizon
            own[result.seed] = cost
    unit = "s" if options.to == "seconds" else ""
    label = f"{options.to} to {metric.name} {target:g}{metric.unit}"
    facts = {arm: replace(_facts(every, arm), reached=count) for arm, count in reached.items()}
    return Question(Metric(label, "lower", unit=unit, decimals=1), values, facts, horizon)


def _costs(result: TrialResult, to: Cost) -> dict[int, float]:
    """Return epoch → cost so far.

    Raises:
        UserError: If the journal does not have it.
    """
    epochs = sorted(set().union(*result.curves.values()))
    if to == "epochs":
        return {epoch: float(epoch) for epoch in epochs}
    own = result.steps if to == "steps" else result.curves.get("epoch_seconds", {})
    if not own:
        raise UserError(
            f"arm `{result.arm}`, seed {result.seed}: its journal has no {to}; use `--to epochs`",
            code="MIM-Y007",
        )
    if to == "steps":
        return {epoch: own[epoch] for epoch in epochs if epoch in own}
    return {epoch: sum(x for e, x in own.items() if e <= epoch) for epoch in epochs}


def _epochs(curves: Iterable[Curve], target: float | None, metric: Metric) -> list[int | None]:
    if target is None or metric.direction is None:
        return []
    return [epochs_to_reach(curve, target, higher_is_better=metric.higher_is_better) for curve in curves]
