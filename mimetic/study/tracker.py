"""A study in MLflow: every run made up front, journals mirrored while it runs, a summary at the end.

Workers never speak to MLflow: this process alone does, so there is one writer whatever the number of
workers, and a store that is away costs no trial anything.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from mimetic.config.base import Section
from mimetic.errors import RunError
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.study.comparing.comparison import Comparison
from mimetic.study.display import Display
from mimetic.study.layout import Trial, read_record, study_id
from mimetic.study.locks import hold_run
from mimetic.tracking import log, runs
from mimetic.tracking.mirror import Mirrors
from mimetic.tracking.store import open_store
from mimetic.tracking.views import save_views, view_link

SERVER = "http://127.0.0.1:5000"
"""Where `mimetic ui` answers unless the port is taken; it prints the true address itself."""

LATER = "`mimetic sync` copies the journals once the store works"


class Tracker:
    """Mirrors one study into an MLflow experiment.

    Raises:
        RunError: If the store does not work.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        trials: Sequence[Trial],
        *,
        root: Path,
        display: Display,
        stages: Sequence[Trial] = (),
    ) -> None:
        self.recipe, self.folder, self.display = recipe, folder, display
        self.study = study_id(folder)
        self.store = open_store(
            root, experiment=recipe.name, note=recipe.description, metric=recipe.study.metric
        )
        for name in runs.reconcile(self.store):
            display.say(f"a run that was left open is now KILLED: {name}")
        trouble = save_views(self.store, self.study)
        if trouble is not None:
            display.say(f"the saved view could not be written: {trouble}")
        self.mirrors = Mirrors()
        self.summary = self._open(trials, stages)

    def _open(self, trials: Sequence[Trial], stages: Sequence[Trial]) -> str:
        """Make the runs that are missing, take over those that are there, and return the summary's id."""
        record = read_record(self.folder)
        origin = runs.Origin(
            recipe=record.get("source"),
            commit=record["environment"].get("git_commit"),
        )
        versions = {f"mimetic.{name}": text for name, text in record["environment"].items()}
        runs.remove_torn(self.store, self.study)
        there, summary = runs.find_runs(self.store, self.study)
        known = {self.study: there}
        # A stage that another study of this recipe mirrors at the moment is left to that one.
        held = [(stage, lock) for stage in stages if (lock := hold_run(stage, self.store.experiment_id))]
        self._locks = [lock for _, lock in held]
        mine = [stage for stage, _ in held]
        for trial in (*mine, *trials):
            kind: Literal["trial", "stage"] = "stage" if trial in mine else "trial"
            study = study_id(Path(trial.study))
            if study not in known:
                runs.remove_torn(self.store, study)
                known[study], _ = runs.find_runs(self.store, study)
            there_is = known[study].get((trial.arm, trial.seed))
            if there_is is not None:
                runs.claim(self.store, there_is)
            run_id = there_is or self._create(kind, trial, origin, versions, record)
            self.mirrors.add(self.store, run_id, trial.journal, fresh=there_is is None)
        if summary is None:
            note = f"{self.recipe.description or ''}\n\nFiles: {self.folder}".strip()
            return runs.create_summary_run(
                self.store, study=self.study, tags=versions, origin=origin, note=note
            )
        runs.claim(self.store, summary)
        return summary

    def _create(
        self,
        kind: Literal["trial", "stage"],
        trial: Trial,
        origin: runs.Origin,
        versions: Mapping[str, str],
        record: Mapping[str, Any],
    ) -> str:
        group = "arms" if kind == "trial" else "stages"
        section: Arm = getattr(self.recipe, group)[trial.arm]
        study = Path(trial.study)
        run_id = runs.create_trial_run(
            self.store,
            study=study_id(study),
            arm=trial.arm,
            seed=trial.seed,
            params=settings(
                model=section.model, data=section.data, train=section.train, learner=section.learner
            ),
            tags=versions,
            origin=origin,
            kind=kind,
        )
        if section.data is not None:
            digest = record["data"].get(f"{group}/{trial.arm}", "")
            log.log_dataset(self.store, run_id, name=section.data.type_name(), digest=digest)
        files = [study / "recipe.yaml", study / "resolved.yaml", study / trial.arm / "plan.json"]
        log.log_files(self.store, run_id, [str(file) for file in files if file.is_file()], folder="recipe")
        log.set_tags(self.store, run_id, {runs.WHOLE: "yes"})  # without it the run is made again
        return run_id

    def pump(self, *, now: bool = False) -> None:
        """Send what the journals gained since the last call."""
        for said in self.mirrors.pump(now=now):
            self.display.say(said)

    def finish(self, comparison: Comparison, files: Sequence[Path], *, interrupted: bool) -> str | None:
        """Send the rest, end what is open, keep the comparison in the summary run, and return the link.

        Where the store does not work the user is told what repairs it, and there is no link.
        """
        reason = "the study was stopped before it started" if interrupted else "it never started"
        self._end_all(reason)
        if self.mirrors.trouble is not None:
            self.display.say(f"{self.folder} is not tracked in full; {LATER}")
            return None
        try:
            self._summarize(comparison, files, interrupted=interrupted)
        except RunError as error:
            self.display.say(f"the summary is not tracked: {error}; it lies in {self.folder}")
        return self.link()

    def abandon(self, reason: str) -> None:
        """End every run that is open: the study itself failed."""
        self._end_all(reason)
        with suppress(RunError):  # the reason is on its way to the user already
            runs.end_run(self.store, self.summary, "FAILED", reason=reason)

    def _end_all(self, reason: str) -> None:
        """Send the rest, and end every trial's run that is open."""
        for said in self.mirrors.finish(reason):
            self.display.say(said)
        for lock in self._locks:
            lock.release()

    def _summarize(self, comparison: Comparison, files: Sequence[Path], *, interrupted: bool) -> None:
        log.log_files(self.store, self.summary, [str(file) for file in files])
        log.log_metrics(self.store, self.summary, comparison.metrics())
        runs.end_run(self.store, self.summary, "KILLED" if interrupted else "FINISHED")

    def link(self) -> str:
        """Return the address of the arms' charts."""
        base = self.store.uri if self.store.uri.startswith("http") else SERVER
        return view_link(base, self.store.experiment_id, study=self.study)


def settings(**sections: Section | None) -> dict[str, Any]:
    """Return the settings that become parameters: few, flat and stable; rules go into artifacts."""
    return {
        name: section.model_dump(mode="json", exclude_none=True)
        for name, section in sections.items()
        if section is not None
    }
