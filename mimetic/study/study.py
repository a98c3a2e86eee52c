"""A study: stages, then arms × seeds, executed, tracked and compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from mimetic.journal import Follower
from mimetic.recipe.load import Source, load
from mimetic.recipe.recipe import Recipe
from mimetic.study.background import BackgroundTracker, open_tracker
from mimetic.study.comparing.comparison import Comparison, compare, read_result
from mimetic.study.comparing.rendering import write_comparison
from mimetic.study.display import Display, NullDisplay
from mimetic.study.executors.executor import Executor
from mimetic.study.executors.pick import pick_executor
from mimetic.study.executors.team import team_size
from mimetic.study.fetching import with_local_runs
from mimetic.study.layout import DEFAULT_ROOT, Trial, is_finished
from mimetic.study.locks import holding_study, wait_for_workers
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.stages import prepare_stages, stage_trials, write_folders
from mimetic.study.study_folder import baseline, find_to_continue, start
from mimetic.train.devices import pick_device


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What became of a study.

    Attributes:
        folder: Where its files lie.
        comparison: The arms compared.
        statuses: How each trial ended, by its name.
        link: Where to look in the MLflow UI; None where the study is not tracked in full.
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
    address: str | None = None,
    profile: bool = False,
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
        address: The Ray cluster, for `study: {executor: ray}`.
        profile: Record where the time of a few steps of the first trial goes, in its folder.

    Returns:
        The comparison and how each trial ended. Ctrl-C ends the trials as KILLED and returns what there is.

    Raises:
        RecipeError: If the recipe does not fit its models; nothing was started then.
        UserError: If data are missing or there is nothing to resume.
    """
    recipe = with_local_runs(load(source), root)
    shown = NullDisplay() if display is None else display
    plans = plan_arms(recipe, allow_code=allow_code)
    for name in {_device(recipe, name) if device is None else device for name in recipe.arms}:
        pick_device(name)  # a missing device is said before anything is written
    if not offline:
        _check_store(root)
    if recipe.study.executor == "ray":
        check_cluster(address, root=root, offline=offline)
    digests = open_data(recipe)
    folder = find_to_continue(root, recipe) if resume else start(root, recipe, plans, digests)

    def trial(study: Path, name: str, seed: int) -> Trial:
        chosen = _device(recipe, name) if device is None else device
        return Trial(str(study), name, seed, chosen, allow_code)

    notes = [f"{name}: {plan.note}" for name, plan in plans.items() if plan.note is not None]
    with holding_study(folder):
        trials = [trial(folder, arm, seed) for seed in recipe.seeds for arm in recipe.arms]
        wait_for_workers(trials, shown.say)
        folders = prepare_stages(recipe, root, digests)
        write_folders(folder, folders)
        stages = stage_trials(recipe, folders, trial)
        waves = [wave for wave in _waves(recipe, stages, trials) if wave]
        if profile:
            waves = [[replace(t, profile=t == wave[0]) for t in wave] for wave in waves]
        queue = list(chain.from_iterable(waves))
        shown.begin(folder, queue)
        for note in notes:
            shown.say(note)
        executor = pick_executor(recipe, queue, logs=folder / "logs", workers=workers, address=address)
        opening = partial(open_tracker, recipe, folder, trials, stages, root=root, display=shown)
        tracking = BackgroundTracker((lambda: None) if offline else opening)
        try:
            if team_size() > 1:
                tracking.wait()  # this process trains itself: nothing runs beside
            interrupted = bool(waves) and _execute(executor, waves, tracking, shown)
            return conclude(recipe, folder, trials, tracking.wait(), interrupted=interrupted)
        except BaseException as error:
            tracking.abandon(f"{type(error).__name__}: {error}")
            raise


def conclude(
    recipe: Recipe, folder: Path, trials: Sequence[Trial], tracker: Any, *, interrupted: bool
) -> StudyResult:
    """Compare what the journals hold, keep the comparison, and end what the tracker still holds open."""
    results = [read_result(trial) for trial in trials]
    comparison = compare(results, baseline=baseline(recipe), metric=recipe.study.metric)
    files = write_comparison(comparison, results, folder)
    link = None if tracker is None else tracker.finish(comparison, files, interrupted=interrupted)
    ended = {trial.name: result.status for trial, result in zip(trials, results, strict=True)}
    return StudyResult(folder, comparison, ended, link, interrupted)


def _waves(recipe: Recipe, stages: Sequence[Trial], trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Yield what is to be trained, wave by wave: stages first, then arms seed by seed."""
    for wave in recipe.generations():
        members = set(wave)
        waiting = [one for one in stages if ("stages", one.arm) in members]
        waiting += [one for one in trials if ("arms", one.arm) in members]
        yield [one for one in waiting if not is_finished(one)]


def _device(recipe: Recipe, name: str) -> str:
    arm = recipe.arms[name] if name in recipe.arms else recipe.stages[name]
    section = arm.train if arm.learner is None else arm.learner
    return "auto" if section is None else section.device


def check_cluster(address: str | None, *, root: Path, offline: bool) -> None:
    """Say that a cluster cannot be used before a study is made.

    Raises:
        UserError: If there is none, or the store does not go with several machines.
    """
    from mimetic.study.executors.cluster import check_store, connect
    from mimetic.tracking.store import tracking_uri

    ray = connect(address)
    if not offline:
        check_store(ray, tracking_uri(root))


def _check_store(root: Path) -> None:
    """Say that $MLFLOW_TRACKING_URI cannot be used before a study is made."""
    from mimetic.tracking.store import tracking_uri

    tracking_uri(root)


def _execute(
    executor: Executor, waves: Sequence[Sequence[Trial]], tracking: BackgroundTracker, display: Display
) -> bool:
    """Run the trials, wave by wave; return whether the user stopped them."""
    followers = {trial: Follower(trial.journal) for trial in chain.from_iterable(waves)}
    for follower in followers.values():
        follower.new()  # what an earlier run said is not news

    def tick() -> None:
        for trial, follower in followers.items():
            events = follower.new()
            if events:
                display.update(trial, events)
        tracking.pump()

    try:
        executor.run(waves, tick)
    except KeyboardInterrupt:
        return True
    return False
