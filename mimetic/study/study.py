"""A study: stages, then arms × seeds, executed, tracked and compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mimetic.errors import RunError
from mimetic.journal import Follower, read_journal, status
from mimetic.recipe import Recipe, load
from mimetic.recipe.load import Source
from mimetic.study.comparison import Comparison, compare
from mimetic.study.display import Display, Quiet
from mimetic.study.layout import Trial, is_finished
from mimetic.study.locks import holding_study, wait_for_workers
from mimetic.study.opening import baseline, find_to_continue, start
from mimetic.study.planning import open_data, plan_arms
from mimetic.study.pool import Pool, cores
from mimetic.study.report import write_comparison
from mimetic.study.stages import prepare_stages, stage_seeds, write_folders
from mimetic.train.devices import pick_device

DEFAULT_ROOT = Path("mlruns")


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What became of a study.

    Attributes:
        folder: Where its files lie.
        comparison: The arms compared.
        statuses: How each trial ended, by its name.
        link: Where to look in the MLflow UI; None where the study ran offline.
        interrupted: Whether it was stopped by the user.
    """

    folder: Path
    comparison: Comparison
    statuses: Mapping[str, str]
    link: str | None
    interrupted: bool

    @property
    def complete(self) -> bool:
        """Tell whether every trial finished."""
        return all(ended == "FINISHED" for ended in self.statuses.values())


def run(
    source: Source,
    *,
    root: Path = DEFAULT_ROOT,
    resume: bool = False,
    offline: bool = False,
    allow_code: bool = False,
    workers: int | None = None,
    device: str | None = None,
    display: Display | None = None,
) -> StudyResult:
    """Train every arm on every seed and compare them.

    Args:
        source: Path of a recipe, a mapping of the same form, or a loaded recipe.
        root: Folder of the runs.
        resume: Continue the latest study of this recipe instead of starting a new one.
        offline: Use no tracking server; the journals can be mirrored later.
        allow_code: Let `type: python` models run.
        workers: Worker processes; the recipe's, or one per core or GPU unless given.
        device: Overrides the recipe's device.
        display: Shows what happens.

    Returns:
        The comparison and how each trial ended. Ctrl-C ends the trials as KILLED and returns what there is.

    Raises:
        RecipeError: If the recipe does not fit its models; nothing was started then.
        UserError: If data are missing or there is nothing to resume.
    """
    recipe = load(source)
    shown = Quiet() if display is None else display
    plans = plan_arms(recipe, allow_code=allow_code)
    for name in {_device(recipe, name) if device is None else device for name in plans}:
        pick_device(name)  # a missing device is said before anything is written
    if not offline:
        _check_store(root)
    digests = open_data(recipe)
    folder = find_to_continue(root, recipe) if resume else start(root, recipe, plans, digests)

    def trial(study: Path, name: str, seed: int) -> Trial:
        chosen = _device(recipe, name) if device is None else device
        return Trial(str(study), name, seed, chosen, allow_code)

    notes = [f"{name}: {plan.note}" for name, plan in plans.items() if plan.note is not None]
    with holding_study(folder):
        trials = [trial(folder, arm, seed) for seed in recipe.seeds for arm in recipe.arms]
        wait_for_workers(trials, shown.say)
        stages = prepare_stages(recipe, root, digests)
        write_folders(folder, stages)
        queues = [_unfinished(recipe, wave, stages, trials, trial) for wave in recipe.waves()]
        shown.begin(folder, [waiting for queue in queues for waiting in queue])
        for note in notes:
            shown.say(note)
        tracker = _tracker(recipe, folder, trials, root=root, offline=offline, display=shown)
        # What is harvested comes first: each wave waits for the one before.
        try:
            interrupted = any(
                _execute(recipe, queue, tracker, folder, workers=workers, display=shown)
                for queue in queues
                if queue
            )
        except BaseException as error:
            if tracker is not None:
                tracker.abandon(f"{type(error).__name__}: {error}")
            raise
        return conclude(recipe, folder, trials, tracker, interrupted=interrupted)


def conclude(
    recipe: Recipe, folder: Path, trials: Sequence[Trial], tracker: Any, *, interrupted: bool
) -> StudyResult:
    """Compare what the journals hold, keep the comparison, and end what the tracker still holds open."""
    histories = [(trial.arm, trial.seed, read_journal(trial.journal)) for trial in trials]
    comparison = compare(histories, baseline=baseline(recipe), metric=recipe.study.metric)
    files = write_comparison(comparison, histories, folder)
    link = None if tracker is None else tracker.finish(comparison, files, interrupted=interrupted)
    ended = {trial.name: status(read_journal(trial.journal)) for trial in trials}
    return StudyResult(folder, comparison, ended, link, interrupted)


def _unfinished(
    recipe: Recipe,
    wave: Sequence[tuple[str, str]],
    stages: Mapping[str, Path],
    trials: Sequence[Trial],
    trial: Callable[[Path, str, int], Trial],
) -> list[Trial]:
    """Return the trials of a wave that are to be trained: its stages' first, then its arms' seed by seed."""
    members = set(wave)
    found = [
        trial(folder, name, seed)
        for name, folder in stages.items()
        if ("stages", name) in members
        for seed in stage_seeds(recipe, name)
    ]
    found += [one for one in trials if ("arms", one.arm) in members]
    return [one for one in found if not is_finished(one)]


def _device(recipe: Recipe, name: str) -> str:
    train = (recipe.arms[name] if name in recipe.arms else recipe.stages[name]).train
    return "auto" if train is None else train.device


def _check_store(root: Path) -> None:
    """Say that $MLFLOW_TRACKING_URI cannot be used before a study is made."""
    from mimetic.tracking.store import tracking_uri

    tracking_uri(root)


def _tracker(
    recipe: Recipe, folder: Path, trials: Sequence[Trial], *, root: Path, offline: bool, display: Display
) -> Any:
    if offline:
        return None
    from mimetic.study.tracker import Tracker

    try:
        return Tracker(recipe, folder, trials, root=root, display=display)
    except RunError as error:
        display.say(f"not tracked: {error}")
        return None


def _execute(
    recipe: Recipe,
    trials: Sequence[Trial],
    tracker: Any,
    folder: Path,
    *,
    workers: int | None,
    display: Display,
) -> bool:
    """Run the trials; return whether the user stopped them."""
    followers = {trial: Follower(trial.journal) for trial in trials}
    for follower in followers.values():
        follower.new()  # what an earlier run said is not news

    def tick() -> None:
        for trial, follower in followers.items():
            events = follower.new()
            if events:
                display.update(trial, events)
        if tracker is not None:
            tracker.pump()

    on_gpu = torch.cuda.is_available() and any(trial.device != "cpu" for trial in trials)
    gpus = torch.cuda.device_count() if on_gpu else 0
    wanted = recipe.study.workers if workers is None else workers
    count = (gpus if gpus else cores()) if wanted is None else wanted
    pool = Pool(workers=count, gpus=gpus, logs=folder / "logs")
    try:
        pool.run(trials, tick)
    except KeyboardInterrupt:
        return True
    return False
