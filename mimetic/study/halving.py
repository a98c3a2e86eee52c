"""Successive halving: after each rung of seeds the worse arms stop (Jamieson & Talwalkar, arXiv 1502.07943).

Arms are paired by seed, so seeds are the resource: a rung trains each arm that is left on the same further
seeds, whole. A decision depends on the recipe and the finished trials of its rung alone, so it is the same
whatever was killed, resumed or added meanwhile; `study.json` has it with its values.
"""

import math
from collections.abc import Sequence
from heapq import nlargest
from itertools import chain
from pathlib import Path
from statistics import fmean

from mimetic.errors import RunError
from mimetic.metrics import metric
from mimetic.recipe.recipe import Recipe
from mimetic.study.comparing.results import finished_curves, read_result
from mimetic.study.config import Halving
from mimetic.study.layout import Trial
from mimetic.study.record import Rung, read_record, write_record


def decide(recipe: Recipe, trials: Sequence[Trial]) -> tuple[Rung, ...]:
    """Return the decisions after the rungs whose trials have finished, the first rung first.

    Raises:
        RunError: If the trials do not have the metric.
    """
    halving, groups = recipe.study.halving, recipe.competing()
    found: list[Rung] = []
    while halving is not None and (count := _size(halving, len(found))) < len(recipe.seeds):
        rung = _rung(halving, groups, recipe.seeds[:count], trials)
        if rung is None:
            break
        found.append(rung)
        groups = tuple(tuple(arm for arm in group if arm not in rung.stopped) for group in groups)
    return tuple(found)


def due(recipe: Recipe, trials: Sequence[Trial]) -> list[Trial]:
    """Return those of a study's trials, without those left out, that belong to the first undecided rung.

    Trials of earlier rungs belong to it, too; without halving all trials do.
    """
    halving = recipe.study.halving
    if halving is None:
        return list(trials)
    seeds = recipe.seeds[: _size(halving, len(decide(recipe, trials)))]
    return [trial for trial in trials if trial.seed in seeds]


def record_rungs(folder: Path, rungs: Sequence[Rung]) -> list[str]:
    """Write decisions into the record of a study that has others, and return those that are new, as text."""
    record = read_record(folder)
    if record.halving == tuple(rungs):
        return []
    write_record(folder, record.model_copy(update={"halving": tuple(rungs)}))
    return [f"halving: {rung}" for rung in rungs if rung not in record.halving]


def _size(halving: Halving, index: int) -> int:
    """Return the number of seeds of a rung, those of earlier ones included."""
    return halving.min_seeds * int(halving.factor**index)


def _rung(
    halving: Halving, groups: Sequence[Sequence[str]], seeds: tuple[int, ...], trials: Sequence[Trial]
) -> Rung | None:
    """Return the decision after a rung; None if one of its trials has not finished.

    Of n arms of a group the best ⌈n/factor⌉ go on, and those that equal the last of them.
    """
    name, means = metric(halving.metric), dict[str, float]()
    for arm in chain.from_iterable(groups):
        own = [read_result(trial) for trial in trials if trial.arm == arm and trial.seed in seeds]
        if any(result.status != "FINISHED" for result in own):
            return None
        curves = finished_curves(own, arm=arm, metric=name)
        if len(curves) < len(own):
            raise RunError(
                f"arm `{arm}` has no `{name.name}` to decide by; choose another metric for `study.halving`",
                code="MIM-Y083",
            )
        means[arm] = fmean(curve[max(curve)] for curve in curves.values())
    sign, stopped = (1.0 if name.higher_is_better else -1.0), list[str]()
    scores = {arm: -math.inf if math.isnan(mean) else sign * mean for arm, mean in means.items()}
    for group in groups:
        best = nlargest(math.ceil(len(group) / halving.factor), (scores[arm] for arm in group))
        stopped += [arm for arm in group if scores[arm] < best[-1]]
    return Rung(halving.metric, seeds, means, tuple(stopped))
