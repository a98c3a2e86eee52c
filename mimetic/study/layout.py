"""Files of a study: `<root>/studies/<recipe>/<id>/<arm>/seed-<n>/`.

The journals in there are the truth about every trial; MLflow mirrors them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mimetic.errors import UserError
from mimetic.journal import Event, Status, read_journal, status
from mimetic.study.record import RECORD, StudyRecord, read_record

DEFAULT_ROOT = Path("mlruns")
"""Folder of the runs unless another is given."""

JOURNAL = "journal.jsonl"

REVISIONS = "revisions"
"""Folder of a study with its former recipes, by number, and with trials that were trained anew since."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One arm on one seed: what a worker needs to find and train it, as plain values.

    `study` is the folder of the study. With `profile`, the time of a few steps is recorded. `data` is the
    digest of its data when the study was planned, `content` the key of everything that its results depend on
    but the seed; both are empty where they are not known.
    """

    study: str
    arm: str
    seed: int
    device: str = "auto"
    allow_code: bool = False
    profile: bool = False
    data: str = ""
    content: str = ""

    @property
    def name(self) -> str:
        """Return the displayed name."""
        return f"{self.arm} · seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Return the trial's folder."""
        return Path(self.study) / self.arm / f"seed-{self.seed}"

    @property
    def journal(self) -> Path:
        """Return the path of the trial's journal."""
        return self.folder / JOURNAL

    def to_json(self) -> str:
        """Return the trial as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """Read what `to_json` returned."""
        return cls(**json.loads(text))


def is_finished(trial: Trial) -> bool:
    """Return whether a trial needs no more training."""
    return trial_status(trial) == "FINISHED"


def trial_status(trial: Trial) -> Status:
    """Return how far a trial is; PENDING if it was trained with another content."""
    return status(trial_events(trial, epochs=False))


def trial_events(trial: Trial, *, epochs: bool = True) -> list[Event]:
    """Return the events of a trial's journal; none if it was trained with another content."""
    events = read_journal(trial.journal, epochs=epochs)
    return events if content_of(events) in {trial.content, ""} or not trial.content else []


def content_of(events: Sequence[Event]) -> str:
    """Return the content that a journal's trial was last started with, empty if unknown."""
    return next((str(e.get("content") or "") for e in reversed(events) if e["event"] == "start"), "")


def trials_of(folder: Path) -> list[Trial]:
    """Return the trials of a study as its record has them, seed by seed, without those halving left out.

    Raises:
        UserError: If the folder has no readable record.
    """
    record = read_record(folder)
    return present(all_trials(folder, record), record)


def present(trials: Iterable[Trial], record: StudyRecord) -> list[Trial]:
    """Return those of a study's trials that successive halving did not leave out."""
    last = stopped_after(record)
    return [trial for trial in trials if trial.seed in last.get(trial.arm, (trial.seed,))]


def stopped_after(record: StudyRecord) -> dict[str, tuple[int, ...]]:
    """Return the arms that successive halving stopped, and the seeds that each was trained on."""
    return {arm: rung.seeds for rung in record.halving for arm in rung.stopped}


def all_trials(folder: Path, record: StudyRecord) -> list[Trial]:
    """Return a trial for each arm and seed of a study, also those that halving leaves out."""
    contents = {arm: record.contents.get(arm, {}).get("key", "") for arm in record.arms}
    return [
        Trial(str(folder), arm, seed, content=contents[arm]) for seed in record.seeds for arm in record.arms
    ]


def trials_on_disk(folder: Path) -> list[Trial]:
    """Return the trials that a study's folder has, also those that its recipe does not name any more."""
    found = (re.fullmatch(r"seed-(\d+)", path.name) and path for path in sorted(folder.glob("*/seed-*")))
    return [Trial(str(folder), path.parent.name, int(path.name[5:])) for path in found if path]


def new_folder(root: Path, recipe: str) -> Path:
    """Create the folder of a new study, named by the time in UTC."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parent = root / "studies" / recipe
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = parent / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder.resolve()
    raise UserError(f"{parent} already has a hundred studies of this second; remove some", code="MIM-Y112")


def study_id(folder: Path) -> str:
    """Return the name of a study in the tracker: recipe and time."""
    return f"{folder.parent.name}/{folder.name}"


def studies(root: Path, recipe: str | None = None) -> Iterator[Path]:
    """Yield the folders of studies below a root, oldest first, of one recipe or of all."""
    pattern = f"studies/{recipe if recipe is not None else '*'}/*/{RECORD}"
    yield from sorted((path.parent for path in root.glob(pattern)), key=lambda folder: folder.name)
