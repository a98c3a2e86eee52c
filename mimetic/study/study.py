"""A study: stages, then arms × seeds, executed, tracked and compared."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mimetic.errors import RunError
from mimetic.journal import Follower, read_journal, status
from mimetic.recipe import Recipe, load
from mimetic.recipe.load import Source
from mimetic.study.comparing.comparison import Comparison, compare
from mimetic.study.comparing.report import write_comparison
from mimetic.study.display import Display, Quiet
from mimetic.study.executors.executor import Executor
from mimetic.study.executors.pick import pick_executor
from mimetic.study.executors.team import team_size
from mimetic.study.fetching import with_local_runs
from mimetic.study.layout import DEFAULT_ROOT, Trial, is_finished
from mimetic.study.locks import holding_study, wait_for_workers
from mimetic.study.opening import baseline, find_to_continue, start
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.stages import prepare_stages, stage_trials, write_folders
from mimetic.train.devices import pick_device

PATIENCE = 10.0
"""Seconds a study that failed waits for a tracker that is being opened."""


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
    shown = Quiet() if display is None else display
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

    def executor(queue: Sequence[Trial]) -> Executor:
        return pick_executor(recipe, queue, logs=folder / "logs", workers=workers, address=address)

    notes = [f"{name}: {plan.note}" for name, plan in plans.items() if plan.note is not None]
    with holding_study(folder):
        trials = [trial(folder, arm, seed) for seed in recipe.seeds for arm in recipe.arms]
        wait_for_workers(trials, shown.say)
        folders = prepare_stages(recipe, root, digests)
        write_folders(folder, folders)
        stages = stage_trials(recipe, folders, trial)
        queues = list(_waves(recipe, stages, trials))
        if profile:
            queues = [[replace(t, profile=t == queue[0]) for t in queue] for queue in queues]
        shown.begin(folder, [waiting for queue in queues for waiting in queue])
        for note in notes:
            shown.say(note)
        opening = partial(_open, recipe, folder, trials, stages, root=root, display=shown, offline=offline)
        tracking = _Tracking(opening)
        if team_size() > 1:
            tracking.opened()  # this process trains itself: nothing runs beside
        # What is harvested comes first: each wave waits for the one before.
        try:
            interrupted = any(_execute(executor(queue), queue, tracking, shown) for queue in queues if queue)
            return conclude(recipe, folder, trials, tracking.opened(), interrupted=interrupted)
        except BaseException as error:
            tracking.abandon(f"{type(error).__name__}: {error}")
            raise


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


def _waves(recipe: Recipe, stages: Sequence[Trial], trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Yield what is to be trained, wave by wave: stages first, then arms seed by seed."""
    for wave in recipe.waves():
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


class _Tracking:
    """A study's tracker, opened in a thread: MLflow takes seconds, and workers start meanwhile.

    So Ctrl-C finds no import of MLflow half-way, which could not be made again.
    """

    def __init__(self, open_: Callable[[], Any]) -> None:
        self._tracker: Any = None
        self._trouble: BaseException | None = None
        self._opening = threading.Thread(target=self._work, args=(open_,), daemon=True)
        self._opening.start()

    def _work(self, open_: Callable[[], Any]) -> None:
        try:
            self._tracker = open_()
        except BaseException as error:  # noqa: BLE001 - raised where the tracker is asked for
            self._trouble = error

    def opened(self) -> Any:
        """Wait for the tracker and return it; None where there is none, or the store does not work."""
        self._opening.join()
        if self._trouble is not None:
            raise self._trouble
        return self._tracker

    def pump(self) -> None:
        """Send what the journals gained since the last call, once the tracker is open."""
        if not self._opening.is_alive() and self.opened() is not None:
            self._tracker.pump()

    def abandon(self, reason: str) -> None:
        """End every run that is open, if there are any: the study itself failed."""
        self._opening.join(PATIENCE)  # what it makes meanwhile would stay open
        if self._tracker is not None:
            self._tracker.abandon(reason)


def _open(
    recipe: Recipe,
    folder: Path,
    trials: Sequence[Trial],
    stages: Sequence[Trial],
    *,
    root: Path,
    display: Display,
    offline: bool,
) -> Any:
    """Return the tracker of a study; None if it is offline, or if the store does not work, which is said."""
    if offline:
        return None
    from mimetic.study.tracker import LATER, Tracker

    try:
        return Tracker(recipe, folder, trials, root=root, display=display, stages=stages)
    except RunError as error:
        display.say(f"not tracked: {error}; {LATER}")
        return None


def _execute(executor: Executor, trials: Sequence[Trial], tracking: _Tracking, display: Display) -> bool:
    """Run the trials; return whether the user stopped them."""
    followers = {trial: Follower(trial.journal) for trial in trials}
    for follower in followers.values():
        follower.new()  # what an earlier run said is not news

    def tick() -> None:
        for trial, follower in followers.items():
            events = follower.new()
            if events:
                display.update(trial, events)
        tracking.pump()

    try:
        executor.run(trials, tick)
    except KeyboardInterrupt:
        return True
    return False
