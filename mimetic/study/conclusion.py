"""Conclude a study: compare its trials, write the comparison, finish tracking."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mimetic.files import JsonObject
from mimetic.printable import plain_html
from mimetic.study.comparing.comparison import compare_all
from mimetic.study.comparing.files import write_results
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.questions import Options
from mimetic.study.comparing.results import TrialResult, read_result, stopped_arms
from mimetic.study.comparing.tables import page_of
from mimetic.study.display import Display
from mimetic.study.layout import present
from mimetic.study.record import read_record
from mimetic.study.tracker import StudyTrials, Tracker


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


def conclude(
    study: StudyTrials,
    tracker: Tracker | None,
    display: Display,
    *,
    interrupted: bool,
    results: Sequence[TrialResult] | None = None,
) -> StudyResult:
    """Compare the results in the journals, write the comparison, and finish tracking.

    `results` are those of the journals, if they were read already. A file that cannot be written, as on a
    full disk, costs no result: it is displayed.
    """
    recipe = study.recipe
    record = read_record(study.folder)
    trials, stopped = present(study.trials, record), stopped_arms(record)
    if results is None:
        results = [read_result(trial) for trial in trials]
    about = Options(metrics=(recipe.study.metric,), baseline=recipe.baseline_arm, stopped=stopped)
    (comparison,) = compare_all({"": results}, about)
    files: list[Path] = []
    written = True
    try:
        files = write_results(comparison, results, study.folder, display.message)
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
