"""Compare the arms of one or several studies by metrics, or by what it costs to reach a target.

Only finished trials count. Differences to the baseline are taken within data sets and seeds, over the seeds
that finished in both arms. Values are in the metric's display unit: journals have accuracies as fractions,
comparisons have them in percent and their differences in percent points.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.metrics import Metric
from mimetic.metrics import metric as metric_of
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.questions import (
    DEFAULTS,
    Options,
    Question,
    Strata,
    cost_question,
    metric_question,
)
from mimetic.study.comparing.results import TrialResult, read_results, stopped_arms
from mimetic.study.comparing.rows import Row
from mimetic.study.comparing.statistics import (
    Difference,
    corrected,
    detectable_difference,
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
    seeds_needed,
    std,
    stratified_interval,
)
from mimetic.study.record import read_record


def compare_all(studies: Mapping[str, Sequence[TrialResult]], options: Options) -> tuple[Comparison, ...]:
    """Compare arms by metrics, and by the cost to reach a target if there is one.

    `studies` is data set → results; the options name metrics and baseline. Arms keep the order in which they
    appear. All tests of all tables are corrected together.

    Raises:
        UserError: If a data set has no trial of the baseline, or what an option needs was not logged.
    """
    for results in studies.values():
        arms = list(dict.fromkeys(result.arm for result in results))
        if options.baseline not in arms:
            raise UserError(
                f"there is no arm `{options.baseline}` to compare with; arms: {listed(arms)}", code="MIM-Y001"
            )
    questions = [metric_question(studies, metric_of(name), options) for name in options.metrics]
    if options.target is not None:
        questions.append(cost_question(studies, options, options.target))
    return answer(questions, options)


def answer(questions: Sequence[Question], options: Options) -> tuple[Comparison, ...]:
    """Return the comparison of each question; all tests are corrected together by Holm's method."""
    level, baseline = options.level, options.baseline

    # the difference of each arm in each table; those of stopped arms are not tested
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

    # all tests are corrected together
    found = corrected(
        plain, lambda key, own: _difference(pairs[key], level=own), level=level, others=len(untested)
    )
    tested = Counter(index for (index, _), difference in found.items() if difference.p is not None)
    tests = tested.total() + len(untested)
    strict = 1.0 - (1.0 - level) / max(1, tests)

    # the tables
    comparisons = []
    for index, question in enumerate(questions):
        rows = [_row(question, arm, found.get((index, arm)), options) for arm in question.values]
        comparisons.append(
            Comparison(
                question.metric,
                baseline,
                tuple(
                    _with_power(r, pairs.get((index, r.arm), {}), options.detect, level=strict) for r in rows
                ),
                level,
                tests - tested[index],
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
    keyed = {(name, seed): value for name, seeds in strata.items() for seed, value in seeds.items()}
    values, is_single = list(keyed.values()), not question.data_sets
    return Row(
        arm=arm,
        values={seed: value for (_, seed), value in keyed.items()} if is_single else keyed,
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


def of_studies(folders: Sequence[Path], options: Options = DEFAULTS) -> tuple[Comparison, ...]:
    """Compare the arms of one or several studies on the disk, each as one data set.

    Metric and baseline are the studies' own unless the options name them.

    Raises:
        UserError: If a folder is no study or twice in the list, the studies differ in metric or baseline and
            none is given, there is no such arm, or no trial has the metric.
    """
    records = [read_record(folder) for folder in folders]
    metrics = options.metrics or (_shared(folders, [r.metric for r in records], "metric"),)
    baseline = options.baseline or _shared(folders, [r.baseline for r in records], "baseline")
    studies = {}
    for name, folder in zip(_names(folders), folders, strict=True):
        studies[name] = read_results(folder)
        logged = {name for result in studies[name] for name in result.curves}
        for missing in [metric for metric in metrics if logged and metric not in logged]:
            names = listed(sorted(logged))
            raise UserError(
                f"{folder}: no trial has the metric `{missing}`; there are {names}", code="MIM-Y002"
            )
    stopped = {name: stop for record in records for name, stop in stopped_arms(record).items()}
    return compare_all(studies, replace(options, metrics=metrics, baseline=baseline, stopped=stopped))


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


def _verdict(difference: Difference | None, metric: Metric, *, alpha: float) -> str | None:
    if difference is None or difference.mean is None or difference.p_holm is None:
        return None
    if difference.p_holm > alpha:
        return "inconclusive"
    is_higher = difference.mean > 0.0
    if metric.direction is None:
        return "higher" if is_higher else "lower"
    return "better" if is_higher == metric.higher_is_better else "worse"
