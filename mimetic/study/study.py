"""Run a study: train stages, then arms × seeds, track and compare them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path

from mimetic.config.address import ConfigPath
from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.recipe.load import Source, load
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.saved import write_run_folders
from mimetic.sources.find import write_stage_folders
from mimetic.study.complete import record_complete
from mimetic.study.conclusion import StudyResult, conclude
from mimetic.study.display import Display
from mimetic.study.executors.pick import check_executor, pick_executor
from mimetic.study.executors.ranks import world_size
from mimetic.study.growing import reuse as reuse_trials
from mimetic.study.growing import settle
from mimetic.study.halving import decide, due, record_rungs
from mimetic.study.layout import (
    DEFAULT_ROOT,
    Trial,
    all_trials,
    is_finished,
    present,
    studies,
    trials_on_disk,
)
from mimetic.study.locks import locked_study, wait_for_workers
from mimetic.study.notebook import NotebookDisplay, in_notebook
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.record import read_record
from mimetic.study.selection import choose, selection, with_choices
from mimetic.study.stages import prepare_stages, stage_trials
from mimetic.study.study_folder import grow, latest, recorded_contents, start
from mimetic.study.ticker import Ticker
from mimetic.study.tracker import BackgroundTracker, StudyTrials, try_open_tracker
from mimetic.tracking.fetch import with_local_runs
from mimetic.tracking.store import tracking_uri
from mimetic.train.devices import pick_device


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where and how to run a study; see `run`."""

    root: Path = DEFAULT_ROOT
    resume: bool = False
    reuse: bool = False
    offline: bool = False
    allow_code: bool = False
    workers: int | None = None
    device: str | None = None
    address: str | None = None
    profile: bool = False

    def device_of(self, recipe: Recipe, at: ConfigPath) -> str:
        """Return the device for an arm or a stage."""
        if self.device is not None:
            return self.device
        arm = recipe.section(at)
        section = arm.train if arm.learner is None else arm.learner
        return "auto" if section is None else section.device

    def trial(
        self, recipe: Recipe, digests: Mapping[str, str], folder: Path, at: ConfigPath, seed: int
    ) -> Trial:
        """Return a trial of an arm or a stage, which may share a name; `digests` are those of their data."""
        data = digests[f"{at.among}/{at.name}"]
        return Trial(str(folder), at.name, seed, self.device_of(recipe, at), self.allow_code, data=data)


def run(
    source: Source,
    *,
    root: str | PathLike[str] = DEFAULT_ROOT,
    resume: bool = False,
    reuse: bool = False,
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
        resume: Continue the latest study of this recipe instead of starting a new one. The recipe may have
            other arms and seeds, and more epochs; what is trained already is not trained again.
        reuse: Copy finished trials of the same content from any study below the root.
        offline: Do not track; `mimetic sync` can upload the journals later.
        allow_code: Allow `type: python` models.
        workers: Worker processes; the recipe's, or one per core or GPU unless given.
        device: Overrides the recipe's device.
        display: Shows progress; by default a notebook has bars, and all else nothing.
        address: The Ray cluster, for `study: {executor: ray}`.
        profile: Profile a few steps of the first trial; the trace is in its folder.

    Returns:
        The comparison and how each trial ended. Ctrl-C ends the trials as KILLED and returns what there is.

    Raises:
        RecipeError: If the recipe does not fit its models. Nothing is started then.
        UserError: If data are missing, there is nothing to resume, or the study cannot follow the recipe.
    """
    root = Path(root)
    options = RunOptions(root, resume, reuse, offline, allow_code, workers, device, address, profile)

    recipe = with_local_runs(load(source), root)
    if display is None:
        display = NotebookDisplay(metric=recipe.study.metric) if in_notebook() else Display()
    if recipe.study.select is None:
        return _run(recipe, options, display)
    # Choose the values of swept arms first, in a separate study.
    plan_arms(recipe, allow_code=allow_code)
    candidates = selection(recipe)
    found = _run(candidates, options, display)
    if not found.complete:
        return found
    choices = choose(recipe, found.comparison)
    recipe = with_choices(recipe, choices)
    # A selection that was resumed may have ended before the comparison was started.
    options = replace(options, resume=resume and any(studies(root, recipe.name)))
    return _run(recipe, options, display, messages=map(str, choices))


def _run(
    recipe: Recipe, options: RunOptions, display: Display, *, messages: Iterable[str] = ()
) -> StudyResult:
    """Train and compare the arms of a recipe without candidates."""
    root, resume = options.root, options.resume
    # Find everything that can be wrong before a file is written.
    plans = plan_arms(recipe, allow_code=options.allow_code)
    _check_resources(recipe, options)
    digests = open_data(recipe)

    remarks = [f"{name}: {plan.note}" for name, plan in plans.items() if plan.note]
    notes = [*messages, *remarks]
    folder = latest(root, recipe) if resume else start(root, recipe, plans, digests)
    with locked_study(folder):
        if resume:
            # A worker leaves alone what has finished with the content of the record.
            done = {trial.folder for trial in all_trials(folder, read_record(folder)) if is_finished(trial)}
            busy = [trial for trial in trials_on_disk(folder) if trial.folder not in done]
            wait_for_workers(busy, display.message)
            notes += grow(folder, recipe, plans, digests)

        # Decide what becomes of the trials: continued, set aside, reused, or stopped by halving.
        record, trial = read_record(folder), partial(options.trial, recipe, digests)
        trials = [
            replace(trial(folder, recipe.address(t.arm), t.seed), content=t.content)
            for t in all_trials(folder, record)
        ]
        notes += settle(trials, recipe, recorded_contents(record))
        notes += reuse_trials(trials, folder, root if options.reuse else None)
        notes += record_rungs(folder, decide(recipe, trials))

        # Write where workers find what the arms harvest from, and train.
        stage_folders = prepare_stages(recipe, root, digests)
        write_stage_folders(folder, stage_folders)
        write_run_folders(folder, recipe)
        stages = stage_trials(recipe, stage_folders, trial)
        study = StudyTrials(recipe, folder, present(trials, read_record(folder)), stages)
        result = _train(study, options, display, notes)
        record_complete(recipe, result, root, remarks)
        return result


def _check_resources(recipe: Recipe, options: RunOptions) -> None:
    """Check devices, store and cluster.

    Raises:
        UserError: If one of them cannot be used; with its position where the recipe names it.
    """
    for at in recipe.addresses():
        try:
            pick_device(options.device_of(recipe, at))
        except UserError as error:
            if options.device is not None:
                raise
            section = "train" if recipe.section(at).learner is None else "learner"
            raise RecipeError([at.issue(str(error), section, "device", code=error.code)]) from None
    uri = None if options.offline else tracking_uri(options.root)
    check_executor(recipe, address=options.address, store=uri)


def _train(study: StudyTrials, options: RunOptions, display: Display, messages: Sequence[str]) -> StudyResult:
    """Train what has not finished, wave by wave, and conclude the study."""
    # what is left to train
    known = due(study.recipe, study.trials)
    waves = _unfinished_waves(study.recipe, study.stages, known)
    if options.profile:
        waves = [[replace(trial, profile=trial == wave[0]) for trial in wave] for wave in waves]
    queue = list(chain.from_iterable(waves))
    display.start(study.folder, queue)
    for message in messages:
        display.message(message)

    # what trains, tracks and shows it
    executor = pick_executor(
        study.recipe, queue, logs=study.folder / "logs", workers=options.workers, address=options.address
    )
    opener = partial(try_open_tracker, study, root=options.root, display=display)
    tracking = BackgroundTracker((lambda: None) if options.offline else opener)
    tick = Ticker(tracking, display)
    tick.follow(queue)

    # train, and conclude
    try:
        if world_size() > 1:
            tracking.wait()  # this process trains: the thread would slow it down
        interrupted = False
        try:
            if waves:
                executor.run(chain(waves, _further_waves(study, known, tick)), tick)
        except KeyboardInterrupt:
            interrupted = True
        return conclude(study, tracking.wait(), display, interrupted=interrupted)
    except BaseException as error:
        tracking.abandon(f"{type(error).__name__}: {error}")
        raise


def _further_waves(study: StudyTrials, known: Sequence[Trial], tick: Ticker) -> Iterator[list[Trial]]:
    """Yield the waves of each further rung of a halving, once the trials of the one before have ended."""
    seen = set(known)
    while True:
        for text in record_rungs(study.folder, decide(study.recipe, study.trials)):
            tick.display.message(text)
        left = present(study.trials, read_record(study.folder))
        new = [trial for trial in due(study.recipe, left) if trial not in seen]
        if not new:
            return
        seen.update(new)
        waves = _unfinished_waves(study.recipe, (), new)
        tick.follow(list(chain.from_iterable(waves)))
        tick.display.add(list(chain.from_iterable(waves)))
        yield from waves


def _unfinished_waves(recipe: Recipe, stages: Sequence[Trial], trials: Sequence[Trial]) -> list[list[Trial]]:
    """Return the trials to train in waves, each of which needs only earlier ones: stages, then arms."""
    waves = []
    for members in map(set, recipe.generations()):
        wave = [stage for stage in stages if ("stages", stage.arm) in members]
        wave += [trial for trial in trials if ("arms", trial.arm) in members]
        waves.append([trial for trial in wave if not is_finished(trial)])
    return [wave for wave in waves if wave]
