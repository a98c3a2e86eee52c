"""Create the folder of a new study, or let that of an earlier one follow its recipe."""

import json
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count
from pathlib import Path

from mimetic.errors import UserError
from mimetic.files import check_contained, write_atomically, write_text
from mimetic.plans.plan import Plan
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.saved import read_recipe, write_recipe
from mimetic.study.changes import Change, changes
from mimetic.study.contents import Content, arm_contents
from mimetic.study.environment import environment, versions
from mimetic.study.layout import REVISIONS, new_folder, studies
from mimetic.study.record import StudyRecord, read_record, write_record

_RESULTS = ("comparison.*", "curves.png")
_FORMER = ("*.yaml", "recipe.json", "study.json", "extends/*", "*/plan.json", *_RESULTS)
"""What is saved of a study when its recipe changes; results are those of the former one."""

_MAX_SHOWN = 6


def start(root: Path, recipe: Recipe, plans: Mapping[str, Plan], digests: Mapping[str, str]) -> Path:
    """Create the folder of a new study with its recipe, plans and record; return the folder."""
    folder = new_folder(root, recipe.name)
    try:
        _write_recipe(folder, recipe, plans)
        write_record(folder, _record(recipe, arm_contents(recipe, plans, digests), digests))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def latest(root: Path, recipe: Recipe) -> Path:
    """Return the folder of the latest study of a recipe, to be resumed.

    Raises:
        UserError: If there is none.
    """
    found = list(studies(root, recipe.name))
    if not found:
        raise UserError(
            f"there is no study of `{recipe.name}` below {root} to resume; run it without --resume",
            code="MIM-Y320",
        )
    return found[-1].resolve()


def grow(
    folder: Path, recipe: Recipe, plans: Mapping[str, Plan], digests: Mapping[str, str]
) -> tuple[str, ...]:
    """Let a study, whose lock the caller holds, follow its recipe, and return what changed, as values.

    The former recipe is saved in `revisions/<n>`. The record is written last and in one step: a study that
    is killed before has its former recipe, and the next call completes the change.

    Raises:
        UserError: If the study cannot follow, or data, plans or files changed; shows the values.
    """
    # what changed, and whether the study can follow
    check_contained(folder)
    record = read_record(folder)
    found = changes(accepted_recipe(folder), recipe)
    known = recorded_contents(record)
    contents = _carried_over(arm_contents(recipe, plans, digests), known, found)
    _check_growth(folder, found, known, contents)
    _check_unchanged(folder, record.data, digests)
    _check_contents(folder, record.environment, known, contents)

    # as text
    new = _record(recipe, contents, digests)
    found += [
        Change((name,), before, now)
        for name, before, now in (("arms", record.arms, new.arms), ("seeds", record.seeds, new.seeds))
        if before != now and set(before) == set(now)
    ]
    notes = [str(change) for change in found]
    for package, now in versions().items():
        before = record.environment.get(package, now)
        notes += [f"{package}: {before} → {now}, which may change results"] if before != now else []

    # the former recipe is set aside, and the new one takes its place
    if notes or _next_revision(folder, record).is_dir():
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "changes": notes,
            **record.model_dump(include={"arms", "seeds", "environment"}),
        }
        _save_former(folder, _next_revision(folder, record))
        _write_recipe(folder, recipe, plans)
        write_record(folder, new.model_copy(update={"revisions": (*record.revisions, entry)}))
    return tuple(notes)


def accepted_recipe(folder: Path) -> Recipe:
    """Return the recipe that a study's record is about, also where a change of it was interrupted.

    Raises:
        UserError: If the folder is no study, or the file is damaged.
    """
    former = _next_revision(folder, read_record(folder))
    return read_recipe(former if former.is_dir() else folder)


def _next_revision(folder: Path, record: StudyRecord) -> Path:
    """Return the folder of the recipe that the next change replaces; it exists only during that change."""
    return folder / REVISIONS / str(len(record.revisions) + 1)


def _save_former(folder: Path, target: Path) -> None:
    """Copy the recipe of a study, its plans, record and comparison, unless that is done already."""
    if not target.is_dir():
        incoming = target.with_name(".incoming")
        shutil.rmtree(incoming, ignore_errors=True)
        for source in chain.from_iterable(map(folder.glob, _FORMER)):
            write_atomically(incoming / source.relative_to(folder), partial(shutil.copyfile, source))
        incoming.rename(target)
    shutil.rmtree(folder / "extends", ignore_errors=True)
    for file in (folder / "recipe.yaml", *chain.from_iterable(map(folder.glob, _RESULTS))):
        file.unlink(missing_ok=True)


def _write_recipe(folder: Path, recipe: Recipe, plans: Mapping[str, Plan]) -> None:
    """Write the files of a recipe, the recipe as it is resolved, and the plans of the first seed."""
    for name, text in zip(_source_names(list(recipe.sources)), recipe.sources.values(), strict=True):
        write_text(folder / name, text)
    write_recipe(folder, recipe)
    for arm, plan in plans.items():
        write_text(folder / arm / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")


def _record(recipe: Recipe, contents: Mapping[str, Content], digests: Mapping[str, str]) -> StudyRecord:
    """Return what is known of a study before its trials start."""
    return StudyRecord(
        recipe=recipe.name,
        source=next(iter(recipe.sources), None),
        arms=tuple(recipe.arms),
        seeds=recipe.seeds,
        baseline=recipe.baseline_arm,
        metric=recipe.study.metric,
        data=dict(digests),
        contents={arm: asdict(content) | {"key": content.key} for arm, content in contents.items()},
        host=socket.gethostname(),
        environment=environment(),
    )


def recorded_contents(record: StudyRecord) -> dict[str, Content]:
    """Return the contents of the arms of a study; none of a study of an earlier version."""
    names = [field.name for field in fields(Content)]
    return {
        arm: Content(**{name: parts.get(name, "") for name in names})
        for arm, parts in record.contents.items()
    }


def _carried_over(
    contents: Mapping[str, Content], known: Mapping[str, Content], found: Sequence[Change]
) -> dict[str, Content]:
    """Return contents with the recorded digests of what did not change.

    A later version may compute digests otherwise, and trials must be found again.
    """
    changed = {change.path[1] for change in found if change.path[0] == "arms"}
    carried = dict(contents)
    for arm in [arm for arm in contents if arm in known and arm not in changed]:
        carried[arm] = replace(carried[arm], section=known[arm].section)
        if not found:
            carried[arm] = replace(carried[arm], upstream=known[arm].upstream)
    return carried


def _source_names(files: Sequence[str]) -> Iterator[str]:
    """Yield the names of a recipe and of the files it extends in a study, different ones for each."""
    taken: set[str] = set()
    for index, file in enumerate(map(Path, files)):
        names = chain([file.name], (f"{file.stem}-{number}{file.suffix}" for number in count(2)))
        name = next(name for name in names if name.casefold() not in taken)
        if index > 0:
            taken.add(name.casefold())
        yield f"extends/{name}" if index > 0 else "recipe.yaml"


def _check_growth(
    folder: Path, found: Sequence[Change], known: Mapping[str, Content], contents: Mapping[str, Content]
) -> None:
    """Refuse changes of what is trained already, but for longer training of an arm.

    Raises:
        UserError: With the values.
    """
    same = {arm for arm in contents if arm in known and contents[arm].section == known[arm].section}
    wrong = [change for change in found if not change.fits(unchanged=same, known=known)]
    if wrong:
        shown = "; ".join(f"`{change}`" for change in wrong[:_MAX_SHOWN])
        more = f" and {len(wrong) - _MAX_SHOWN} more" if len(wrong) > _MAX_SHOWN else ""
        raise UserError(
            f"{folder} cannot follow the recipe: {shown}{more}; a study takes more seeds, other arms and "
            "more epochs: undo the change, rename the changed arm, or run it without --resume as a new "
            "study",
            code="MIM-Y321",
        )


def _check_unchanged(folder: Path, known: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Refuse other data than those of the trials that are already trained.

    Raises:
        UserError: With the digests.
    """
    for name, now in digests.items():
        before = known.get(name, now)
        if before != now:
            raise UserError(
                f"the data of {name} changed since {folder}: their digest was {before} and is now {now}; "
                "restore them, or run it without --resume as a new study",
                code="MIM-Y323",
            )


def _check_contents(
    folder: Path,
    environment: Mapping[str, str],
    known: Mapping[str, Content],
    contents: Mapping[str, Content],
) -> None:
    """Refuse other plans or files than those of the trials that are already trained.

    Raises:
        UserError: With the digests.
    """
    for arm, now in contents.items():
        before = known.get(arm, now)
        if before.plan != now.plan:
            mimetic, torch = (environment.get(name, "unknown") for name in ("mimetic", "torch"))
            raise UserError(
                f"the plan of arm `{arm}` changed since {folder}: its digest was {before.plan} and is now "
                f"{now.plan}; restore what it is made from (it was made by mimetic {mimetic} and torch "
                f"{torch}), or run it without --resume as a new study",
                code="MIM-Y324",
            )
        if before.files != now.files:
            raise UserError(
                f"the files that arm `{arm}` takes weights, covariances or its model from changed since "
                f"{folder}: their digest was {before.files} and is now {now.files}; restore them, or run it "
                "without --resume as a new study",
                code="MIM-Y325",
            )
