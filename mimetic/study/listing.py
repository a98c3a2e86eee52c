"""Summarize the studies below a root: what they have, how far they are, and the result."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mimetic.errors import UserError
from mimetic.files import parse_json, read_regular
from mimetic.study.comparing.tables import headline_of
from mimetic.study.layout import all_trials, present, stopped_after, studies, trial_status
from mimetic.study.record import StudyRecord, read_record


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study on the disk.

    Attributes:
        folder: Its folder.
        arms: Names of its arms.
        seeds: Its seeds.
        statuses: Status → number of trials.
        result: The result in a sentence, once every trial finished.
        error: Why the study cannot be read.
        stopped: The arms that successive halving stopped.
    """

    folder: Path
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    statuses: Mapping[str, int] | None = None
    result: str | None = None
    error: str | None = None
    stopped: tuple[str, ...] = ()


def summaries(root: Path) -> Iterator[StudySummary]:
    """Yield the studies below a root, oldest first; one that is damaged hides no other."""
    for folder in studies(root):
        try:
            yield _summary(folder, read_record(folder))
        except UserError as error:
            yield StudySummary(folder, error=str(error))


def _summary(folder: Path, record: StudyRecord) -> StudySummary:
    """Return a study that is read from its comparison, or from its journals if that is not of all trials."""
    trials, stopped = present(all_trials(folder, record), record), tuple(stopped_after(record))
    found = _conclusion(folder)
    if found is not None and found[0] == {"FINISHED": len(trials)}:
        return StudySummary(folder, record.arms, record.seeds, *found, stopped=stopped)
    statuses: Counter[str] = Counter(map(trial_status, trials))
    ordered = dict(sorted(statuses.items()))
    return StudySummary(folder, record.arms, record.seeds, ordered, stopped=stopped)


def _conclusion(folder: Path) -> tuple[dict[str, int], str] | None:
    """Return statuses and result that the study's own comparison has; None without a readable one."""
    try:
        found = parse_json(read_regular(folder / "comparison.json"))
        statuses: Counter[str] = Counter()
        for row in found["arms"]:
            statuses.update({str(name): int(number) for name, number in row["statuses"].items()})
        verdicts = {str(row["arm"]): row["verdict"] for row in found["arms"]}
        return dict(statuses), headline_of(str(found["metric"]), str(found["baseline"]), verdicts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
