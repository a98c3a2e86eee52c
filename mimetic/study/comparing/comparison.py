"""Compare the arms of one or several studies by metrics, or by what it costs to reach a target.

Only finished trials count. Differences to the baseline are taken within data sets and seeds, over the seeds
that finished in both arms. Values are in the metric's display unit: journals have accuracies as fractions,
comparisons have them in percent and their differences in percent points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.files import JsonObject, check_contained
from mimetic.journal import Event, Status, history, status
from mimetic.metrics import Metric, metric_name
from mimetic.metrics import metric as metric_of
from mimetic.study.comparing.statistics import (
    LEVEL,
    Difference,
    corrected,
    detectable_difference,
    epochs_to_reach,
    interquartile_mean,
    mean,
    median_or_never,
    paired_difference,
    probability_of_improvement,
    seeds_needed,
    std,
    stratified_interval,
)
from mimetic.study.layout import Trial, read_record, trial_events, trials_of

Curve = Mapping[int, float]
"""Epoch → value."""

Strata = Mapping[str, Mapping[int, float]]
"""Data set → seed → value; a single data set has any name."""

Epoch = Literal["last", "best"]
"""Which epoch of a trial counts: the last, or the best on validation data."""

Cost = Literal["epochs", "steps", "seconds"]
"""What it costs to reach a target is counted in."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a trial, as its journal holds it.

    Curves are metric → epoch → logged value; `steps` is epoch → optimizer steps so far; `seconds` is the wall
    time of training, None if unknown; `origin` is the trial of which this is a copy, if it is one.
    """

    arm: str
    seed: int
    status: Status
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None
    steps: Curve = field(default_factory=dict)
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """After how many seeds successive halving stopped an arm, and its mean over them on validation data."""

    seeds: int
    metric: str
    mean: float

    @property
    def text(self) -> str:
        """Return it in words, e.g. `stopped after 1 seed`."""
        return f"stopped after {self.seeds} seed{'s' if self.seeds > 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to compare, and how.

    Attributes:
        metrics: Names of the metrics; each gives a comparison, all of them corrected together.
        baseline: The arm that the others are compared with.
        epoch: Which epoch of each trial counts.
        target: Also compare what it costs to reach this value of the first metric, in its display unit.
        to: What that cost is counted in.
        detect: Also return how many seeds would detect a difference of this size, in the display unit.
        level: Coverage of the intervals; 1 - level is the family-wise error rate of the verdicts.
        stopped: The arms that successive halving stopped. They have no verdict, and count in the correction:
            whatever was stopped, the others' verdicts are wrong with a probability of at most 1 - level.
    """

    metrics: tuple[str, ...]
    baseline: str
    epoch: Epoch = "last"
    target: float | None = None
    to: Cost = "epochs"
    detect: float | None = None
    level: float = LEVEL
    stopped: Mapping[str, Stopped] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One arm in a comparison, in the metric's display unit.

    Attributes:
        arm: Name of the arm.
        values: Seed → value of the metric, of finished trials; (data set, seed) → value if there are several.
        mean: Mean over seeds; with several data sets, the interquartile mean. None if no trial finished.
        std: Standard deviation over seeds (n - 1); None below two.
        difference: Paired difference to the baseline; None for the baseline itself.
        verdict: `better`, `worse` or `inconclusive`, by Holm's corrected test; `higher` or `lower` for a
            metric without a direction; None if there is no test.
        epochs: Median over seeds of the first epoch as good as the baseline's final mean; None if never.
        reached: How many seeds reached it.
        seconds: Mean wall time of training, in seconds.
        statuses: Status → number of trials.
        interval: Ends of the interval of an interquartile mean over several data sets.
        improvement: Probability that a trial is better than one of the baseline.
        detectable: Difference that this number of seeds detects with a probability of 80 %.
        needed: Number of seeds that would detect `Comparison.detect`; None if too many or not computed.
        reused: Trials that were copied instead of trained, as `recipe/time/arm/seed-0`.
        stopped: When successive halving stopped the arm, if it did. The difference to the baseline is then
            over these seeds, without an interval.
    """

    arm: str
    values: Mapping[int, float] | Mapping[tuple[str, int], float]
    mean: float | None
    std: float | None
    difference: Difference | None
    verdict: str | None
    epochs: float | None
    reached: int
    seconds: float | None
    statuses: Mapping[str, int]
    interval: tuple[float, float] | None = None
    improvement: float | None = None
    detectable: float | None = None
    needed: int | None = None
    reused: tuple[str, ...] = ()
    stopped: Stopped | None = None

    @property
    def n(self) -> int:
        """Return the number of seeds that count."""
        return len(self.values)

    @property
    def trials(self) -> int:
        """Return the number of trials of any status."""
        return sum(self.statuses.values())


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """The arms compared by one metric.

    Attributes:
        metric: The metric.
        baseline: The arm that the others are compared with.
        rows: One for each arm, in the order of the recipe.
        level: Coverage of the intervals; 1 - level is the family-wise error rate of the verdicts.
        others: Number of tests of other tables, and of stopped arms, that were corrected together with these.
        epoch: Which epoch of each trial counts.
        detect: The difference that `Row.needed` is about.
        data_sets: Names of the data sets, if there are several.
        horizon: With a cost to reach a target, the cost that counts for trials that did not reach it.
    """

    metric: Metric
    baseline: str
    rows: tuple[Row, ...]
    level: float = LEVEL
    others: int = 0
    epoch: Epoch = "last"
    detect: float | None = None
    data_sets: tuple[str, ...] = ()
    horizon: float | None = None

    def __repr__(self) -> str:
        """Return the result in one line."""
        from mimetic.study.comparing.tables import headline

        return f"<Comparison: {headline(self)}>"

    def _repr_html_(self) -> str:
        from mimetic.study.comparing.tables import page_of

        return page_of(self)

    @property
    def comparisons(self) -> int:
        """Return the number of tests that are corrected together, those of `others` included."""
        return self.others + sum(
            row.difference is not None and row.difference.p is not None for row in self.rows
        )

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
            "epoch": self.epoch,
            "detect": self.detect,
            "data_sets": list(self.data_sets),
            "horizon": self.horizon,
            "arms": [
                {
                    "n": row.n,
                    **asdict(row),
                    "interval": None if row.interval is None else list(row.interval),
                    "reused": list(row.reused),
                    "values": {_plain_key(key): value for key, value in row.values.items()},
                }
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


def _plain_key(key: int | tuple[str, int]) -> str:
    return str(key) if isinstance(key, int) else f"{key[0]}/{key[1]}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table says of an arm beside the values that are tested; see `Row`."""

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


def compare(
    results: Sequence[TrialResult], *, baseline: str, metric: str, level: float = LEVEL
) -> Comparison:
    """Compare arms of one study by one metric at the last epoch; see `compare_all`."""
    return compare_all({"": results}, Options(metrics=(metric,), baseline=baseline, level=level))[0]


def compare_all(studies: Mapping[str, Sequence[TrialResult]], options: Options) -> tuple[Comparison, ...]:
    """Compare arms by metrics, and by the cost to reach a target if there is one.

    `studies` is data set → results. Arms keep the order in which they appear. All tests of all tables are
    corrected together.

    Raises:
        UserError: If a data set has no trial of the baseline, or what an option needs was not logged.
    """
    for results in studies.values():
        arms = list(dict.fromkeys(result.arm for result in results))
        if options.baseline not in arms:
            raise UserError(
                f"there is no arm `{options.baseline}` to compare with; arms: {listed(arms)}", code="MIM-Y001"
            )
    questions = [_question(studies, metric_of(name), options) for name in options.metrics]
    if options.target is not None:
        questions.append(_cost_question(studies, options, options.target))
    return answer(questions, options)


def answer(questions: Sequence[Question], options: Options) -> tuple[Comparison, ...]:
    """Return the comparison of each question; all tests are corrected together by Holm's method."""
    level, baseline = options.level, options.baseline
    pairs = {
        (index, arm): _pairs(question.values[arm], question.values[baseline])
        for index, question in enumerate(questions)
        for arm in question.values
        if arm != baseline
    }
    plain = {key: _difference(strata, level=level) for key, strata in pairs.items()}
    untested = {
        key: stop for key in plain if (stop := options.stopped.get(key[1], options.stopped.get(baseline)))
    }
    plain |= {
        key: Difference(plain[key].n, plain[key].mean, reason=stop.text) for key, stop in untested.items()
    }
    found = corrected(
        plain, lambda key, own: _difference(pairs[key], level=own), level=level, others=len(untested)
    )
    tested = [index for (index, _), difference in found.items() if difference.p is not None]
    strict = 1.0 - (1.0 - level) / max(1, len(tested) + len(untested))
    comparisons = []
    for index, question in enumerate(questions):
        rows = []
        for arm in question.values:
            row = _row(question, arm, found.get((index, arm)), options)
            rows.append(_with_power(row, pairs.get((index, arm), {}), options.detect, level=strict))
        comparisons.append(
            Comparison(
                question.metric,
                baseline,
                tuple(rows),
                level,
                len(tested) - tested.count(index) + len(untested),
                options.epoch,
                options.detect,
                question.data_sets,
                question.horizon,
            )
        )
    return tuple(comparisons)


Pairs = Mapping[str, tuple[list[float], list[float]]]


def _pairs(values: Strata, others: Strata) -> Pairs:
    """Return data set → values of two arms, seed by seed; data sets without a pair are left out."""
    found = {}
    for name in values:
        seeds = [seed for seed in values[name] if seed in others.get(name, {})]
        if seeds:
            found[name] = ([values[name][s] for s in seeds], [others[name][s] for s in seeds])
    return found


def _difference(pairs: Pairs, *, level: float) -> Difference:
    if len(pairs) > 1:
        return stratified_interval(
            [[a - b for a, b in zip(*both, strict=True)] for both in pairs.values()], level=level
        )
    return paired_difference(*next(iter(pairs.values()), ([], [])), level=level)


def _row(question: Question, arm: str, difference: Difference | None, options: Options) -> Row:
    """Return the row of an arm, without power."""
    strata, facts, metric = question.values[arm], question.facts[arm], question.metric
    values = [value for seeds in strata.values() for value in seeds.values()]
    is_single = not question.data_sets
    return Row(
        arm=arm,
        values={s: x for seeds in strata.values() for s, x in seeds.items()}
        if is_single
        else {(name, s): x for name, seeds in strata.items() for s, x in seeds.items()},
        mean=mean(values) if is_single or not values else float(interquartile_mean(values)),
        std=std(values) if is_single else None,
        difference=difference,
        verdict=_verdict(difference, metric, alpha=1.0 - options.level),
        epochs=facts.epochs,
        reached=facts.reached,
        seconds=facts.seconds,
        statuses=facts.statuses,
        interval=None if is_single else _interval(strata),
        improvement=None if arm in options.stopped else _improvement(question, arm, options.baseline),
        reused=facts.reused,
        stopped=options.stopped.get(arm),
    )


def _interval(strata: Strata) -> tuple[float, float] | None:
    """Return the interval of an arm's interquartile mean over data sets, if its seeds give one."""
    found = stratified_interval([list(seeds.values()) for seeds in strata.values()])
    return None if found.low is None or found.high is None else (found.low, found.high)


def _improvement(question: Question, arm: str, baseline: str) -> float | None:
    """Return the probability that an arm is better than the baseline, if the metric has a direction."""
    if question.metric.direction is None or arm == baseline:
        return None
    strata, others = question.values[arm], question.values[baseline]
    return probability_of_improvement(
        [(list(x.values()), list(others[name].values())) for name, x in strata.items() if name in others],
        higher_is_better=question.metric.higher_is_better,
    )


def _with_power(row: Row, pairs: Pairs, detect: float | None, *, level: float) -> Row:
    """Add what this number of seeds can detect, of one data set."""
    both = next(iter(pairs.values()), ([], []))
    scatter = std([a - b for a, b in zip(*both, strict=True)])
    if len(pairs) != 1 or scatter is None or row.difference is None or row.difference.p is None:
        return row
    return replace(
        row,
        detectable=detectable_difference(scatter, len(both[0]), level=level),
        needed=None if detect is None else seeds_needed(scatter, detect, level=level),
    )


def _question(studies: Mapping[str, Sequence[TrialResult]], metric: Metric, options: Options) -> Question:
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


def _cost_question(studies: Mapping[str, Sequence[TrialResult]], options: Options, target: float) -> Question:
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


def of_study(folder: Path, *, metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Compare the arms of a study on the disk, by its own metric and baseline unless given.

    Raises:
        UserError: As `of_studies`.
    """
    return of_studies([folder], metrics=() if metric is None else (metric,), baseline=baseline)[0]


def of_studies(
    folders: Sequence[Path],
    *,
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    options: Options | None = None,
) -> tuple[Comparison, ...]:
    """Compare the arms of one or several studies on the disk, each a data set of its own.

    Metric and baseline are the studies' own unless given; of `options` the rest is used.

    Raises:
        UserError: If a folder is no study or twice in the list, the studies differ in metric or baseline and
            none is given, there is no such arm, or no trial has the metric.
    """
    records = [read_record(folder) for folder in folders]
    chosen = tuple(metrics) if metrics else (_shared(folders, [r["metric"] for r in records], "metric"),)
    arm = baseline if baseline is not None else _shared(folders, [r["baseline"] for r in records], "baseline")
    studies = {}
    for name, folder in zip(_names(folders), folders, strict=True):
        studies[name] = read_results(folder)
        logged = {name for result in studies[name] for name in result.curves}
        for missing in [metric for metric in chosen if logged and metric not in logged]:
            names = listed(sorted(logged))
            raise UserError(
                f"{folder}: no trial has the metric `{missing}`; there are {names}", code="MIM-Y002"
            )
    plain = Options(metrics=chosen, baseline=arm) if options is None else options
    stopped = {name: stop for record in records for name, stop in stopped_arms(record).items()}
    return compare_all(studies, replace(plain, metrics=chosen, baseline=arm, stopped=stopped))


def stopped_arms(record: JsonObject) -> dict[str, Stopped]:
    """Return the arms of a study that successive halving stopped, from its record."""
    return {
        arm: Stopped(len(rung["seeds"]), rung["metric"], rung["means"][arm])
        for rung in record["halving"]
        for arm in rung["stopped"]
    }


def read_results(folder: Path) -> list[TrialResult]:
    """Read the results of a study's trials, in the order of its arms.

    Raises:
        UserError: If the folder is no study.
    """
    trials = trials_of(folder)
    check_contained(folder)
    return [read_result(trial) for trial in trials]


def _shared(folders: Sequence[Path], values: Sequence[str], what: str) -> str:
    """Return the entry that all studies share."""
    if len(set(values)) > 1:
        pairs = ", ".join(f"{folder}: {value}" for folder, value in zip(folders, values, strict=True))
        raise UserError(
            f"the studies differ in their {what} ({pairs}); choose one with --{what}", code="MIM-Y008"
        )
    return values[0]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each study.

    Raises:
        UserError: If a study is listed twice.
    """
    paths = [folder.resolve() for folder in folders]
    if twice := next((path for index, path in enumerate(paths) if path in paths[:index]), None):
        raise UserError(
            f"{twice} is listed twice; its trials would count twice, so list it once", code="MIM-Y009"
        )
    recipes = [path.parent.name for path in paths]
    is_unique = len(set(recipes)) == len(recipes)
    return [path.parent.name if is_unique else f"{path.parent.name}/{path.name}" for path in paths]


def read_result(trial: Trial) -> TrialResult:
    """Read the result of a trial from its journal."""
    return trial_result(trial.arm, trial.seed, trial_events(trial))


def trial_result(arm: str, seed: int, events: Sequence[Event]) -> TrialResult:
    """Return the result that a journal's events amount to."""
    curves = history(events)
    if "epoch_seconds" in curves:  # an epoch counts once, however often the trial was resumed
        seconds: float | None = sum(curves["epoch_seconds"].values())
    else:
        ends = [event.get("seconds") for event in events if event["event"] == "end"]
        seconds = ends[-1] if ends else None
    steps = {e["epoch"]: e["step"] for e in events if e["event"] == "epoch" and e.get("step") is not None}
    origin = next((f"{e['study']}/{e['trial']}" for e in events if e["event"] == "reused"), None)
    return TrialResult(arm, seed, status(events), curves, seconds, steps, origin)


def finished_curves(results: Iterable[TrialResult], *, arm: str, metric: Metric) -> dict[int, Curve]:
    """Return seed → epoch → displayed value of a metric, of an arm's finished trials that have it."""
    return {
        result.seed: {e: metric.factor * value for e, value in result.curves[metric.name].items()}
        for result in results
        if result.arm == arm and result.status == "FINISHED" and result.curves.get(metric.name)
    }


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
