"""Prepare the trials of a study that grew: what is trained already is continued, set aside or reused."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path

from mimetic.errors import RunError, UserError
from mimetic.files import check_contained, remove_temporary_files, write_atomically
from mimetic.journal import Event, Journal, read_journal
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.study.contents import Content, section_digest
from mimetic.study.environment import versions
from mimetic.study.executors.ranks import world_size
from mimetic.study.layout import (
    JOURNAL,
    REVISIONS,
    Trial,
    content_of,
    is_finished,
    studies,
    study_id,
    trials_of,
    trials_on_disk,
)
from mimetic.study.record import read_record
from mimetic.train.checkpoint import CHECKPOINT, WEIGHTS, load_weights
from mimetic.train.devices import pick_device
from mimetic.train.schedules import continues

_COPIED = (JOURNAL, "*.json", "*.safetensors", "pictures/*.png")
"""What is copied of a trial that is reused."""


def settle(trials: Sequence[Trial], recipe: Recipe, contents: Mapping[str, Content]) -> list[str]:
    """Continue or set aside trials that were trained with another content, and return what happens to them.

    A trial of fewer epochs continues from its checkpoint where that gives the weights of a training from the
    start. Any other is moved to the latest revision of the study, and trained anew.
    """
    happened: Counter[str] = Counter()
    agree = cache(continues)
    for trial in trials:
        if content_of(read_journal(trial.journal, epochs=False)) in {"", trial.content}:
            continue
        arm, events = recipe.arms[trial.arm], read_journal(trial.journal)
        reason = _obstacle(trial, events, arm, contents[trial.arm], agree)
        if reason is None:
            for harvest in trial.folder.glob("harvest-*.safetensors"):  # measured on the former weights
                harvest.unlink()
            happened[f"`{trial.arm}` goes on to {arm.train.epochs if arm.train else 0} epochs"] += 1
        else:
            place = _set_aside(trial).parent
            happened[f"`{trial.arm}` is trained anew: {reason}; its former trials are in {place}"] += 1
    return [f"{what} (trials: {number})" for what, number in happened.items()]


def _obstacle(
    trial: Trial, events: Sequence[Event], arm: Arm, content: Content, agree: Callable[..., bool]
) -> str | None:
    """Return why a trial that was trained with another content cannot go on; None if it can."""
    started = next(event for event in reversed(events) if event["event"] == "start")
    before, trained = started.get("epochs"), [e for e in events if e["event"] == "epoch" and e["epoch"] > 0]
    if arm.train is None or not isinstance(before, int) or before >= arm.train.epochs:
        return "what it depends on changed"
    shorter = arm.model_copy(update={"train": arm.train.model_copy(update={"epochs": before})})
    if replace(content, section=section_digest(shorter)).key != content_of(events):
        return "what it depends on changed"
    if not trained or not (trial.folder / CHECKPOINT).is_file():
        return "its checkpoint is missing"
    per_epoch = trained[-1]["step"] // trained[-1]["epoch"]
    if not agree(arm.train.schedule, steps=per_epoch * before, longer=per_epoch * arm.train.epochs):
        return "the learning rate of a step depends on the number of epochs"
    return None


def _set_aside(trial: Trial) -> Path:
    """Move the folder of a trial to the latest revision of its study, and return where it is."""
    study = Path(trial.study)
    number = len(read_record(study).revisions)
    target = study / REVISIONS / str(number) / trial.arm / trial.folder.name
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(trial.folder)  # of a worker that was killed; none will write here again
    trial.folder.rename(target)
    return target


def reuse(trials: Sequence[Trial], folder: Path, root: Path | None) -> list[str]:
    """Copy finished trials of the same content and seed to where they are missing, and return messages.

    They are those of former arms of the study, and with a root those of every study below it. The journal of
    a copy names its origin; its weights are compared with their digest.
    """
    for leftover in folder.glob("*/.seed-*.incoming"):  # of a process that was killed while it copied
        shutil.rmtree(leftover)
    missing: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        if trial.content and not trial.journal.exists():
            missing.setdefault((trial.content, trial.seed), []).append(trial)
    if not missing:
        return []
    own = {trial.folder for trial in trials}
    former = (
        replace(trial, content=content_of(read_journal(trial.journal)))
        for trial in trials_on_disk(folder)
        if trial.folder not in own
    )
    happened: Counter[str] = Counter()
    messages = []
    for source in chain(former, () if root is None else _others(root, folder)):
        wanted = missing.get((source.content, source.seed), [])
        if not wanted or not is_finished(source) or not _is_repeatable(source, wanted[0]):
            continue
        try:
            while wanted:
                _copy(source, wanted[-1])
                origin = f"{study_id(Path(source.study))}/{source.arm}"
                happened[f"`{wanted.pop().arm}` from {origin}"] += 1
        except (OSError, UserError, RunError) as error:
            shutil.rmtree(_incoming(wanted[-1]), ignore_errors=True)
            messages.append(f"{source.folder} is not reused: {error}")
    return messages + [f"reused {what} (trials: {number})" for what, number in happened.items()]


def _others(root: Path, folder: Path) -> Iterator[Trial]:
    """Yield the trials of other studies, latest studies first; damaged studies are left out."""
    for other in reversed(list(studies(root))):
        if other.resolve() != folder:
            try:
                yield from trials_of(other.resolve())
            except UserError:
                continue


def _is_repeatable(source: Trial, trial: Trial) -> bool:
    """Return whether a trial would be the same if it were trained now: versions, device and ranks."""
    device = pick_device(trial.device).type
    starts = [event for event in read_journal(source.journal) if event["event"] == "start"]
    return all(
        start.get("versions") == versions()
        and str(start.get("device")).partition(":")[0] == device
        and start.get("ranks", 1) == max(1, world_size())
        for start in starts
    )


def _incoming(trial: Trial) -> Path:
    return trial.folder.with_name(f".{trial.folder.name}.incoming")


def _copy(source: Trial, trial: Trial) -> None:
    """Copy a finished trial, in one step.

    Raises:
        OSError: If a file cannot be read or written.
        UserError: If its folder leads elsewhere, or the weights are those of another plan.
        RunError: If the weights are damaged.
    """
    check_contained(source.folder)
    incoming = _incoming(trial)
    files: Iterable[Path] = chain.from_iterable(map(source.folder.glob, _COPIED))
    for file in files:
        write_atomically(incoming / file.relative_to(source.folder), partial(shutil.copyfile, file))
    start = next(e for e in reversed(read_journal(source.journal)) if e["event"] == "start")
    if load_weights(incoming / WEIGHTS, plan_hash=start["plan"]) is None and start.get("epochs") is not None:
        raise RunError("its weights were not saved", code="MIM-Y326")
    with Journal(incoming / JOURNAL) as journal:
        journal.write(
            "reused", study=study_id(Path(source.study)), trial=f"{source.arm}/{source.folder.name}"
        )
    shutil.rmtree(trial.folder, ignore_errors=True)
    incoming.rename(trial.folder)
