"""Track a study in MLflow: create every run first, upload journals while it runs, write a summary at the end.

Workers never use MLflow: only this process does, so there is one writer whatever the number of workers, and a
store that is down costs no trial anything.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from mimetic.analysis.style import color
from mimetic.errors import RunError
from mimetic.printable import plain_markdown
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.study.comparing.formats import markdown
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.report import REPORT
from mimetic.study.comparing.tables import headline
from mimetic.study.display import Display
from mimetic.study.layout import Trial, study_id
from mimetic.study.locks import lock_run
from mimetic.study.record import StudyRecord, read_record
from mimetic.tracking import log, runs
from mimetic.tracking.store import Store, open_store
from mimetic.tracking.uploader import StudyUploader
from mimetic.tracking.views import FILTERS, result_link, save_result, save_views, view_link

SERVER = "http://127.0.0.1:5000"
"""Default address of `mimetic ui`, which prints the actual one."""

LATER = "`mimetic sync` copies the journals once the store works"

ABANDON_TIMEOUT = 10.0
"""Seconds a study that failed waits for a tracker that is being opened."""


@dataclass(frozen=True)
class StudyTrials:
    """A study and its trials.

    Other studies may share the trials of its stages.
    """

    recipe: Recipe
    folder: Path
    trials: Sequence[Trial]
    stages: Sequence[Trial] = ()

    @cached_property
    def record(self) -> StudyRecord:
        """Return the study's record, read once."""
        return read_record(self.folder)

    @cached_property
    def params(self) -> dict[str, dict[str, str]]:
        """Arm or stage → its settings that are not the same in all arms; artifacts have the whole recipe."""
        settings = {name: _settings(arm) for name, arm in {**self.recipe.stages, **self.recipe.arms}.items()}
        known = Counter(item for name in self.recipe.arms for item in settings[name].items())
        shared = {name for (name, _), count in known.items() if count == len(self.recipe.arms)}
        base = settings[self.recipe.baseline_arm]
        return {
            arm: {name: value for name, value in own.items() if name not in shared or value != base[name]}
            for arm, own in settings.items()
        }


@dataclass(frozen=True, slots=True)
class Tracker:
    """Tracks one study in an MLflow experiment; see `open_tracker`."""

    study: StudyTrials
    store: Store
    summary: str
    uploader: StudyUploader
    locks: Sequence[FileLock]
    display: Display

    def sync(self) -> None:
        """Upload what the journals gained since the last call, if it is time."""
        self._show(self.uploader.upload())

    def finish(self, comparison: Comparison, files: Sequence[Path], *, interrupted: bool) -> str | None:
        """Upload the rest, end open runs, log the comparison to the summary run, and return the link.

        If the store does not work, the repair is displayed and there is no link.
        """
        folder = self.study.folder
        self._end_trials("interrupted before this trial started" if interrupted else "trial was not started")
        if self.uploader.error is not None:
            self.display.message(f"{folder} is not tracked in full; {LATER}")
            return None
        base = self.store.uri if self.store.uri.startswith("http") else SERVER
        name, experiment = study_id(folder), self.store.experiment_id
        link = view_link(base, experiment, study=name)
        try:
            log.log_files(self.store, log.artifacts_of(self.store, self.summary), files)
            log.log_metrics(self.store, self.summary, comparison.metrics())
            save_result(self.store, name, self._note(comparison), run=self.summary, file=REPORT)
            if folder / REPORT in files:
                link = result_link(base, experiment, run=self.summary, file=REPORT)
            runs.end_run(self.store, self.summary, "KILLED" if interrupted else "FINISHED")
        except RunError as error:
            self.display.message(f"the summary is not tracked: {error}; see {folder}")
        return link

    def _note(self, comparison: Comparison) -> str:
        """Return the result as Markdown: sentence, table, figure, links; MLflow shows the first lines."""
        recipe, name, experiment = self.study.recipe, study_id(self.study.folder), self.store.experiment_id
        report = result_link("", experiment, run=self.summary, file=REPORT).removeprefix("/")
        links = {
            "Charts of the arms": view_link("", experiment, study=name),
            "Table of the trials": view_link("", experiment, study=name, mode="TABLE"),
            "Filters": view_link("", experiment, study=name, view=FILTERS),
        }
        parts = [
            f"**{plain_markdown(headline(comparison))}** [Report]({report})",
            markdown([comparison]),
            f"![comparison](get-artifact?path=comparison.png&run_uuid={self.summary})",
            " · ".join(f"[{text}]({link.removeprefix('/')})" for text, link in links.items()),
            plain_markdown(f"{recipe.description or ''}\n\nFiles: {self.study.folder}").strip(),
        ]
        return "\n\n".join(parts)

    def abandon(self, reason: str) -> None:
        """End every open run, because the study itself failed."""
        self._end_trials(reason)
        with suppress(RunError):  # the user gets the error of the study
            runs.end_run(self.store, self.summary, "FAILED", reason=reason)

    def _end_trials(self, reason: str) -> None:
        self._show(self.uploader.finish(reason))
        for lock in self.locks:
            lock.release()

    def _show(self, messages: Sequence[str]) -> None:
        for message in messages:
            self.display.message(message)


def open_tracker(study: StudyTrials, *, root: Path, display: Display) -> Tracker:
    """Open the store and create the runs of a study, or take over those that exist.

    Raises:
        RunError: If the store does not work.
    """
    # the experiment: former runs, views
    recipe, name = study.recipe, study_id(study.folder)
    store = open_store(root, experiment=recipe.name, note=recipe.description, metric=recipe.study.metric)
    for run in runs.reconcile(store):
        display.message(f"a run that was left open is now KILLED: {run}")
    if error := save_views(store, name, metric=recipe.study.metric):
        display.message(f"the saved view could not be written: {error}")
    contents = {(trial.arm, trial.seed): trial.content for trial in study.trials}
    runs.follow_growth(store, name, contents, colors=_colors(recipe))

    # a run for each trial; a stage that another study is uploading is left to that study
    locked = [(stage, lock) for stage in study.stages if (lock := lock_run(stage, store.experiment_id))]
    uploader = StudyUploader(metric=recipe.study.metric)
    known: dict[str, runs.FoundRuns] = {}
    for trial in [*(stage for stage, _ in locked), *study.trials]:
        owner = study_id(Path(trial.study))
        if owner not in known:
            runs.delete_incomplete_runs(store, owner)
            known[owner] = runs.find_runs(store, owner)
        run_id = known[owner].trials.get((trial.arm, trial.seed))
        ended = known[owner].finished.get(run_id or "")
        if run_id is not None and ended is None:
            runs.claim(store, run_id)
        uploader.add(store, run_id or _Creation(store, study, trial), trial.journal, ended=ended)

    # the summary
    summary = (known[name] if name in known else runs.find_runs(store, name)).summary
    if summary is None:
        note = f"{recipe.description or ''}\n\nFiles: {study.folder}".strip()
        summary = runs.create_run(store, _with_source(study, runs.NewRun(name, kind="summary", note=note)))
    else:
        runs.claim(store, summary)
    return Tracker(study, store, summary, uploader, [lock for _, lock in locked], display)


@dataclass(slots=True)
class _Creation:
    """Creates the run of a trial, with everything that is known before training but its params."""

    store: Store
    study: StudyTrials
    trial: Trial
    is_repeated: bool = False

    def __call__(self, started: float | None, tags: Mapping[str, str]) -> runs.StartedRun:
        store, study, trial = self.store, self.study, self.trial
        folder = Path(trial.study)

        # what a former attempt left that failed half-way
        if self.is_repeated:
            runs.delete_incomplete_runs(store, study_id(folder), trial=(trial.arm, trial.seed))
        self.is_repeated = True

        # the run
        is_arm = folder == study.folder
        own = {runs.CONTENT_TAG: trial.content} if trial.content else {}
        if is_arm:
            own[runs.COLOR_TAG] = _colors(study.recipe)[trial.arm]
        new = runs.NewRun(
            study_id(folder),
            "trial" if is_arm else "stage",
            trial.arm,
            trial.seed,
            study.params[trial.arm],
            {**tags, **own},
            start_time=started,
        )
        run = runs.start_run(store, _with_source(study, new))

        # its data and files
        log.log_json(store, run.artifacts, study.record.environment, file="environment.json")
        data = (study.recipe.arms if is_arm else study.recipe.stages)[trial.arm].data
        if data is not None:
            digest = study.record.data.get(f"{'arms' if is_arm else 'stages'}/{trial.arm}", "")
            log.log_dataset(store, run.id, name=data.type_name(), digest=digest)
        files = [folder / "recipe.yaml", folder / "resolved.yaml", folder / trial.arm / "plan.json"]
        log.log_files(store, run.artifacts, [file for file in files if file.is_file()], folder="recipe")
        return run


def _colors(recipe: Recipe) -> dict[str, str]:
    """Return arm → its colour in our figures."""
    return {arm: color(place) for place, arm in enumerate(recipe.arms)}


def _with_source(study: StudyTrials, run: runs.NewRun) -> runs.NewRun:
    """Add the study's source to a run."""
    return replace(run, recipe=study.record.source, commit=study.record.environment.get("git_commit"))


def _settings(arm: Arm) -> dict[str, str]:
    """Return the settings of an arm as flat text; each rule and rewrite is one of them."""
    settings = arm.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"init", "surgery", "seeds"}
    )
    listed = arm.model_dump(mode="json", by_alias=True, exclude_unset=True, include={"init", "surgery"})
    for key, entries in listed.items():
        for place, entry in enumerate(entries):
            rest = {name: value for name, value in entry.items() if name != "id"}
            settings[f"{key}.{entry.get('id', place)}"] = json.dumps(rest, ensure_ascii=False)
    return log.flatten(settings)


class BackgroundTracker:
    """Opens a tracker in a thread while workers start: importing MLflow and creating runs takes seconds.

    In a thread, because Ctrl-C must not interrupt the import of MLflow, which cannot be repeated.

    `opener` returns the tracker, or None if the study is not tracked.
    """

    def __init__(self, opener: Callable[[], Tracker | None]) -> None:
        self._tracker: Tracker | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._open, args=(opener,), daemon=True)
        self._thread.start()

    def _open(self, opener: Callable[[], Tracker | None]) -> None:
        try:
            self._tracker = opener()
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`
            self._error = error

    def wait(self) -> Tracker | None:
        """Wait for the tracker and return it; None if the study is not tracked or the store does not work."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._tracker

    def sync(self) -> None:
        """Upload what the journals gained since the last call, once the tracker is open."""
        if not self._thread.is_alive() and (tracker := self.wait()) is not None:
            tracker.sync()

    def abandon(self, reason: str) -> None:
        """End every open run, because the study itself failed."""
        self._thread.join(ABANDON_TIMEOUT)  # runs that it creates meanwhile would stay open
        if self._tracker is not None:
            self._tracker.abandon(reason)


def try_open_tracker(study: StudyTrials, *, root: Path, display: Display) -> Tracker | None:
    """Open the tracker of a study, or show why the store does not work and return None."""
    try:
        return open_tracker(study, root=root, display=display)
    except RunError as error:
        display.message(f"not tracked: {error}; {LATER}")
        return None
