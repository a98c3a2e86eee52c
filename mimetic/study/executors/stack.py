"""Several trials trained as one stacked model; one after another where that cannot be, with the reason.

Only the training is common. Each trial is prepared, journaled and ended as by itself. One with a checkpoint
goes on by itself, and with it those it was to be stacked with.
"""

from collections.abc import Sequence
from functools import partial

from mimetic.recipe.recipe import Recipe
from mimetic.study.layout import Trial
from mimetic.study.trials.shelf import TrialCache
from mimetic.study.trials.trial import Steps, Stop, hand_in, trial_steps
from mimetic.train.outcome import Outcome
from mimetic.train.ranks import ALONE
from mimetic.train.stack import reason_against
from mimetic.train.stacked import train_stacked
from mimetic.train.work import Work


def stacks(recipe: Recipe, trials: Sequence[Trial], *, size: int) -> list[tuple[Trial, ...]]:
    """Put trials together that share study, model, surgery, data and training, up to `size` of them.

    Args:
        recipe: Says what arms and stages are made of.
        trials: The trials, in the order they are to run in.
        size: Most trials of a stack.
    """
    found: dict[tuple[str, ...], list[list[Trial]]] = {}
    order: list[list[Trial]] = []
    for trial in trials:
        arm = recipe.arms[trial.arm] if trial.arm in recipe.arms else recipe.stages[trial.arm]
        parts = arm.model_dump_json(include={"model", "surgery", "data", "train"})
        own = (trial.name,) if arm.learner is not None else ()
        rows = found.setdefault((trial.study, trial.device, parts, *own), [])
        if not rows or len(rows[-1]) == size:
            rows.append([])
            order.append(rows[-1])
        rows[-1].append(trial)
    return [tuple(rows) for rows in order]


def run_stack(trials: Sequence[Trial], shelf: TrialCache, stop: Stop) -> list[str]:
    """Train some trials as one, or one after another, and return how each ended.

    Args:
        trials: Trials of one model, data set and training.
        shelf: What earlier trials of this process left.
        stop: Returns why training should stop, if it should; asked once a step.
    """
    ended: dict[Trial, str] = {}
    waiting: dict[Trial, tuple[Steps, Work]] = {}
    for trial in trials:
        steps = trial_steps(trial, shelf, stop)
        try:
            waiting[trial] = (steps, next(steps))
        except StopIteration as done:  # it failed, was stopped, or is finished
            ended[trial] = str(done.value)
        shelf.let_go()
    works = [work for _, work in waiting.values()]
    reason = reason_against(works) if works else None
    if reason is not None:
        for trial, (steps, work) in waiting.items():
            ended[trial] = hand_in(steps, partial(_by_itself, work, stop, reason))
        return [ended[trial] for trial in trials]
    outcomes, failure = _trained(works, stop)
    for row, (trial, (steps, _)) in enumerate(waiting.items()):
        ended[trial] = hand_in(steps, partial(_outcome, outcomes, failure, row))
    return [ended[trial] for trial in trials]


def _by_itself(work: Work, stop: Stop, reason: str) -> Outcome:
    work.journal.write("note", text=f"trained by itself, not stacked: {reason}", aloud=True)
    return work.alone(stop, ALONE)


def _trained(works: Sequence[Work], stop: Stop) -> tuple[list[Outcome], Exception | None]:
    try:
        return (train_stacked(works, stop) if works else []), None
    except Exception as error:  # noqa: BLE001 - each trial journals it
        return [], error


def _outcome(outcomes: Sequence[Outcome], failure: Exception | None, row: int) -> Outcome:
    if failure is not None:
        raise failure
    return outcomes[row]
