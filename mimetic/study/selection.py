"""Choose the values of swept arms on validation data, before the arms are compared.

    recipe with candidates → `selection`, a recipe of the candidates → trained as a study → `choose`
    → `with_choices`, a recipe of the arms with the chosen values → trained and compared

The seeds of the two studies do not overlap, and the first looks at validation data alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mimetic.errors import RunError
from mimetic.recipe.recipe import Recipe
from mimetic.study.comparing.outcome import Comparison

_SUFFIX = "-selection"
_LONGEST = 2000
"""Maximum length of a description."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which candidate an arm takes its values from.

    Attributes:
        arm: The arm.
        candidate: The candidate with the best mean.
        means: Mean over seeds by candidate, in the metric's display unit, of those that were not stopped.
        metric: The metric of validation data.
        stopped: The candidates that successive halving stopped before.
    """

    arm: str
    candidate: str
    means: Mapping[str, float]
    metric: str
    stopped: tuple[str, ...] = ()

    def __str__(self) -> str:
        means = ", ".join(f"{name} {value:.4g}" for name, value in self.means.items())
        stopped = f"; stopped before: {', '.join(self.stopped)}" if self.stopped else ""
        return f"{self.arm} takes the values of {self.candidate} ({self.metric}: {means}{stopped})"


def selection(recipe: Recipe) -> Recipe:
    """Return the recipe of a recipe's candidates, on the seeds and by the metric of the selection."""
    select = recipe.study.select
    assert select is not None
    names = [name for found in recipe.candidates().values() for name in found]
    halving = recipe.study.halving
    if halving is not None:
        groups = tuple(tuple(found) for found in recipe.candidates().values() if len(found) > 1)
        halving = halving.model_copy(update={"groups": groups})
    return recipe.with_arms(
        {name: recipe.arms[name] for name in names},
        name=f"{recipe.name[: 80 - len(_SUFFIX)]}{_SUFFIX}",
        seeds=select.seeds,
        baseline=None,
        study=recipe.study.model_copy(update={"metric": select.metric, "select": None, "halving": halving}),
    )


def choose(recipe: Recipe, comparison: Comparison) -> tuple[Choice, ...]:
    """Return the best candidate of each arm.

    Args:
        recipe: The recipe with the candidates.
        comparison: The comparison of its `selection`.

    Raises:
        RunError: If no candidate of an arm has a value.
    """
    best = max if comparison.metric.higher_is_better else min
    choices = []
    for arm, names in recipe.candidates().items():
        rows = [row for name in names if (row := comparison.row(name)).stopped is None]
        means = {row.arm: row.mean for row in rows if row.mean is not None}
        if not means:
            raise RunError(
                f"no candidate of the arm `{arm}` has finished; see their logs, and continue with --resume",
                code="MIM-Y082",
            )
        stopped = tuple(name for name in names if comparison.row(name).stopped is not None)
        choice = best(means, key=means.__getitem__)
        choices.append(Choice(arm, choice, means, comparison.metric.name, stopped))
    return tuple(choices)


def with_choices(recipe: Recipe, choices: Sequence[Choice]) -> Recipe:
    """Return the recipe in which each arm has the values of its chosen candidate."""
    chosen = {choice.arm: recipe.arms[choice.candidate] for choice in choices}
    arms = {name: chosen.get(name, arm) for name, arm in recipe.arms.items() if arm.candidate_of is None}
    lines = "\n".join(map(str, choices))
    description = lines if recipe.description is None else f"{recipe.description}\n{lines}"
    return recipe.with_arms(
        arms,
        study=recipe.study.model_copy(update={"select": None, "halving": None}),
        description=description[:_LONGEST],
    )
