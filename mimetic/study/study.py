"""Run a study: train stages, then arms × seeds, track and compare them."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path

from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.files import JsonObject, write_text
from mimetic.journal import Follower
from mimetic.printable import plain_html
from mimetic.recipe.load import Source, load
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.saved import write_run_folders
from mimetic.sources.find import write_stage_folders
from mimetic.study.comparing.comparison import (
    Comparison,
    Options,
    TrialResult,
    compare_all,
    read_result,
    stopped_arms,
)
from mimetic.study.comparing.rendering import write_comparison
from mimetic.study.comparing.report import REPORT, report
from mimetic.study.comparing.tables import page_of
from mimetic.study.display import Display
from mimetic.study.executors.pick import check_executor, pick_executor
from mimetic.study.executors.torchrun import world_size
from mimetic.study.growing import reuse as reuse_trials
from mimetic.study.growing import settle
from mimetic.study.halving import decide, due, record_rungs
from mimetic.study.layout import (
    DEFAULT_ROOT,
    Trial,
    all_trials,
    is_finished,
    read_record,
    studies,
    trials_of,
    trials_on_disk,
)
from mimetic.study.locks import holding_study, wait_for_workers
from mimetic.study.notebook import NotebookDisplay, in_notebook
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.selection import choose, selection, with_choices
from mimetic.study.stages import prepare_stages, stage_trials
from mimetic.study.study_folder import baseline, grow, latest, recorded_contents, start
from mimetic.study.tracker import BackgroundTracker, StudyTrials, Tracker, try_open_tracker
from mimetic.tracking.fetch import with_local_runs
from mimetic.tracking.store import tracking_uri
from mimetic.train.devices import pick_device

_WATCHED = 64
"""Most trials whose journals are looked at several times a second."""


@dataclass(frozen=True, slots=True, repr=False)
class StudyResult:
    """The result of a study.

    Attributes:
        folder: Folder of its files.
        comparison: The arms compared.
        statuses: Name of a trial → how it ended.
        link: Address in the MLflow UI; None if the study is not fully tracked.
        interrupted: Whether the user stopped it.
        written: Whether the files of the comparison were written.
    """

    folder: Path
    comparison: Comparison
    statuses: Mapping[str, str]
    link: str | None
    interrupted: bool
    written: bool = True

    def __repr__(self) -> str:
        """Return in one line how the trials ended, and where they are."""
        return f"<StudyResult: {self._trials}, {self.folder}>"

    def _repr_html_(self) -> str:
        shown = f"{plain_html(self._trials)}, {plain_html(str(self.folder))}"
        if self.link is not None and self.link.startswith(("http://", "https://")):
            shown += f', <a href="{plain_html(self.link)}">MLflow</a>'
        return f"{page_of(self.comparison)}\n<p>{shown}</p>"

    @property
    def _trials(self) -> str:
        counts = Counter(self.statuses.values())
        return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))

    def to_dict(self) -> JsonObject:
        """Return plain values that JSON can hold."""
        return {
            "study": str(self.folder),
            "complete": self.complete,
            "interrupted": self.interrupted,
            "link": self.link,
            "statuses": dict(self.statuses),
            "comparison": self.comparison.to_dict(),
        }

    @property
    def complete(self) -> bool:
        """Return whether every trial finished and the comparison was written."""
        return self.written and all(status == "FINISHED" for status in self.statuses.values())


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

    def device_of(self, recipe: Recipe, name: str) -> str:
        """Return the device for an arm or a stage."""
        if self.device is not None:
            return self.device
        arm = recipe.arms[name] if name in recipe.arms else recipe.stages[name]
        section = arm.train if arm.learner is None else arm.learner
        return "auto" if section is None else section.device

    def trial(self, recipe: Recipe, digests: Mapping[str, str], folder: Path, name: str, seed: int) -> Trial:
        """Return a trial of an arm or a stage; `digests` are those of their data."""
        data = digests[f"{'arms' if name in recipe.arms else 'stages'}/{name}"]
        return Trial(str(folder), name, seed, self.device_of(recipe, name), self.allow_code, data=data)


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
    root, resume, reuse = options.root, options.resume, options.reuse
    # Find everything that can be wrong before a file is written.
    plans = plan_arms(recipe, allow_code=options.allow_code)
    _check_resources(recipe, options)
    digests = open_data(recipe)

    notes = [*messages, *(f"{name}: {plan.note}" for name, plan in plans.items() if plan.note)]
    folder = latest(root, recipe) if resume else start(root, recipe, plans, digests)
    with holding_study(folder):
        if resume:
            # A worker leaves alone what has finished with the content of the record.
            done = {trial.folder for trial in all_trials(folder, read_record(folder)) if is_finished(trial)}
            busy = [trial for trial in trials_on_disk(folder) if trial.folder not in done]
            wait_for_workers(busy, display.message)
            notes += grow(folder, recipe, plans, digests)
        trial = partial(options.trial, recipe, digests)
        every = all_trials(folder, read_record(folder))
        trials = [replace(trial(folder, t.arm, t.seed), content=t.content) for t in every]
        notes += settle(trials, recipe, recorded_contents(read_record(folder)))
        notes += reuse_trials(trials, folder, root if reuse else None)
        notes += record_rungs(folder, decide(recipe, trials))
        stage_folders = prepare_stages(recipe, root, digests)
        write_stage_folders(folder, stage_folders)
        write_run_folders(folder, recipe)
        stages = stage_trials(recipe, stage_folders, trial)
        study = StudyTrials(recipe, folder, _present(trials, folder), stages)
        return _train(study, options, display, notes)


def _check_resources(recipe: Recipe, options: RunOptions) -> None:
    """Check devices, store and cluster.

    Raises:
        UserError: If one of them cannot be used; with its position where the recipe names it.
    """
    for at in recipe.addresses():
        try:
            pick_device(options.device_of(recipe, at.name))
        except UserError as error:
            if options.device is not None:
                raise
            section = "train" if recipe.section(at).learner is None else "learner"
            raise RecipeError([at.issue(str(error), section, "device", code=error.code)]) from None
    uri = None if options.offline else tracking_uri(options.root)
    check_executor(recipe, address=options.address, store=uri)


def _train(study: StudyTrials, options: RunOptions, display: Display, messages: Sequence[str]) -> StudyResult:
    """Train what has not finished, wave by wave, and conclude the study."""
    known = due(study.recipe, study.trials)
    waves = _unfinished_waves(study.recipe, study.stages, known)
    if options.profile:
        waves = [[replace(trial, profile=trial == wave[0]) for trial in wave] for wave in waves]
    queue = list(chain.from_iterable(waves))
    display.start(study.folder, queue)
    for message in messages:
        display.message(message)
    executor = pick_executor(
        study.recipe,
        queue,
        logs=study.folder / "logs",
        workers=options.workers,
        address=options.address,
    )
    opener = partial(try_open_tracker, study, root=options.root, display=display)
    tracking = BackgroundTracker((lambda: None) if options.offline else opener)
    tick = _Ticker(tracking, display)
    tick.follow(queue)
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


def _present(trials: Iterable[Trial], folder: Path) -> list[Trial]:
    """Return those of the trials that the record of their study has."""
    names = {(trial.arm, trial.seed) for trial in trials_of(folder)}
    return [trial for trial in trials if (trial.arm, trial.seed) in names]


def _further_waves(study: StudyTrials, known: Sequence[Trial], tick: "_Ticker") -> Iterator[list[Trial]]:
    """Yield the waves of each further rung of a halving, once the trials of the one before have ended."""
    seen = set(known)
    while True:
        for text in record_rungs(study.folder, decide(study.recipe, study.trials)):
            tick.display.message(text)
        new = [
            trial for trial in due(study.recipe, _present(study.trials, study.folder)) if trial not in seen
        ]
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


def _write_results(
    comparison: Comparison, results: Sequence[TrialResult], folder: Path, display: Display
) -> list[Path]:
    """Write the files of a comparison unless they are there, and return them.

    `comparison.json` is written last: if it is equal, so are the others. A study whose recipe or versions
    change has none of them at first.

    Raises:
        OSError: If a file cannot be written; it names the file.
    """
    last, text = folder / "comparison.json", json.dumps(comparison.to_dict(), indent=1) + "\n"
    files = [file for name in ("comparison.*", "curves.png", REPORT) for file in sorted(folder.glob(name))]
    is_drawn = any(file.suffix == ".png" for file in files)
    if is_drawn and {last, folder / REPORT} <= set(files) and last.read_bytes() == text.encode():
        return files
    files = write_comparison(comparison, results, folder, display.message)
    drawn = {file.stem: file.read_bytes() for file in files if file.suffix == ".png"}
    files.append(folder / REPORT)
    write_text(files[-1], report([comparison], {folder: results}, drawn=drawn))
    write_text(last, text)
    return [last, *files]


class _Ticker:
    """Shows and uploads new events of the journals, each time that it is called.

    Trials start about in the order in which they are followed: of those that have not started, only the first
    ones are looked at, and those that have ended not any more.
    """

    def __init__(self, tracking: BackgroundTracker, display: Display) -> None:
        self.tracking, self.display = tracking, display
        self._waiting: deque[tuple[Trial, Follower]] = deque()
        self._running: list[tuple[Trial, Follower]] = []

    def follow(self, trials: Iterable[Trial]) -> None:
        """Follow the journals of further trials; events of earlier runs are skipped."""
        for trial in trials:
            self._waiting.append((trial, Follower(trial.journal)))
            self._waiting[-1][1].new()

    def __call__(self) -> None:
        """Show what is new."""
        for entry in tuple(self._running):
            self._show(entry)
        while self._waiting and len(self._running) < _WATCHED:
            self._running.append(self._waiting.popleft())
            self._show(self._running[-1])
        self.tracking.sync()

    def _show(self, entry: tuple[Trial, Follower]) -> None:
        trial, follower = entry
        if events := follower.new():
            self.display.update(trial, events)
            if events[-1]["event"] == "end":
                self._running.remove(entry)


def conclude(
    study: StudyTrials, tracker: Tracker | None, display: Display, *, interrupted: bool
) -> StudyResult:
    """Compare the results in the journals, write the comparison, and finish tracking.

    A file that cannot be written, as on a full disk, costs no result: it is displayed.
    """
    recipe = study.recipe
    trials, stopped = _present(study.trials, study.folder), stopped_arms(read_record(study.folder))
    results = [read_result(trial) for trial in trials]
    about = Options(metrics=(recipe.study.metric,), baseline=baseline(recipe), stopped=stopped)
    (comparison,) = compare_all({"": results}, about)
    files: list[Path] = []
    written = True
    try:
        files = _write_results(comparison, results, study.folder, display)
    except OSError as error:
        written = False
        display.message(
            f"{error.filename} cannot be written ({error.strerror}); make room and run it with --resume: the "
            "journals have all results"
        )
    if tracker is not None:
        tracker.uploader.leave_out({trial.journal for trial in study.trials} - {t.journal for t in trials})
    link = None if tracker is None else tracker.finish(comparison, files, interrupted=interrupted)
    statuses = {trial.name: result.status for trial, result in zip(trials, results, strict=True)}
    return StudyResult(study.folder, comparison, statuses, link, interrupted, written)
