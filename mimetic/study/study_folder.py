"""Create the folder of a new study, or find that of one to resume."""

import json
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from mimetic.errors import UserError
from mimetic.files import JsonObject, check_contained, parse_json, read_regular, write_text
from mimetic.plans.plan import Plan
from mimetic.recipe.dump import resolved
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.saved import write_recipe
from mimetic.study.environment import environment
from mimetic.study.layout import new_folder, read_record, studies, write_record


def baseline(recipe: Recipe) -> str:
    """Return the arm that the others are compared with."""
    return next(iter(recipe.arms)) if recipe.baseline is None else recipe.baseline


def start(root: Path, recipe: Recipe, plans: Mapping[str, Plan], digests: Mapping[str, str]) -> Path:
    """Create the folder of a new study with its recipe, plans and record; return the folder."""
    folder = new_folder(root, recipe.name)
    try:
        for name, text in zip(_source_names(list(recipe.sources)), recipe.sources.values(), strict=True):
            write_text(folder / name, text)
        write_recipe(folder, recipe)
        for arm, plan in plans.items():
            write_text(folder / arm / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
        record = {
            "recipe": recipe.name,
            "source": next(iter(recipe.sources), None),
            "arms": list(recipe.arms),
            "seeds": list(recipe.seeds),
            "baseline": baseline(recipe),
            "metric": recipe.study.metric,
            "data": dict(digests),
            "host": socket.gethostname(),
            "environment": environment(),
        }
        write_record(folder, record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _source_names(files: Sequence[str]) -> Iterator[str]:
    """Yield the names of a recipe and of the files it extends in a study, different ones for each."""
    taken: set[str] = set()
    for index, file in enumerate(map(Path, files)):
        names = chain([file.name], (f"{file.stem}-{number}{file.suffix}" for number in count(2)))
        name = next(name for name in names if name.casefold() not in taken)
        if index > 0:
            taken.add(name.casefold())
        yield f"extends/{name}" if index > 0 else "recipe.yaml"


def find_to_continue(
    root: Path, recipe: Recipe, plans: Mapping[str, Plan], digests: Mapping[str, str]
) -> Path:
    """Return the folder of the latest study of a recipe, to be resumed.

    Raises:
        UserError: If there is none, or recipe, data or plans differ; shows the first difference.
    """
    found = list(studies(root, recipe.name))
    if not found:
        raise UserError(
            f"there is no study of `{recipe.name}` below {root} to resume; run it without --resume",
            code="MIM-Y320",
        )
    folder = found[-1].resolve()
    check_contained(folder)
    record = read_record(folder)
    before = _lines(folder / "resolved.yaml")
    now = resolved(recipe).splitlines()
    changed = [(a, b) for a, b in zip(before, now, strict=False) if a != b]
    if changed or len(before) != len(now):
        old, new = changed[0] if changed else (f"{len(before)} lines", f"{len(now)} lines")
        raise UserError(
            f"the recipe changed since {folder}: `{old.strip()}` is now `{new.strip()}`; "
            "undo the change, or run it without --resume as a new study",
            code="MIM-Y321",
        )
    _check_unchanged(folder, record, plans, digests)
    return folder


def _check_unchanged(
    folder: Path, record: JsonObject, plans: Mapping[str, Plan], digests: Mapping[str, str]
) -> None:
    """Refuse other data or other plans than those of the trials that are already trained.

    Raises:
        UserError: With the digests.
    """
    for name, now in digests.items():
        before = record["data"].get(name, now)
        if before != now:
            raise UserError(
                f"the data of {name} changed since {folder}: their digest was {before} and is now {now}; "
                "restore them, or run it without --resume as a new study",
                code="MIM-Y323",
            )
    for arm, plan in plans.items():
        before = _plan_hash(folder / arm / "plan.json", plan.hash)
        if before != plan.hash:
            mimetic, torch = (record["environment"].get(name, "unknown") for name in ("mimetic", "torch"))
            raise UserError(
                f"the plan of arm `{arm}` changed since {folder}: its hash was {before} and is now "
                f"{plan.hash}; restore what it is made from (it was made by mimetic {mimetic} and torch "
                f"{torch}), or run it without --resume as a new study",
                code="MIM-Y324",
            )


def _plan_hash(path: Path, default: str) -> str:
    """Return the hash of a saved plan, or the default where there is none."""
    try:
        saved = parse_json(read_regular(path))
    except (OSError, ValueError):
        return default
    return str(saved.get("hash", default)) if isinstance(saved, dict) else default


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); restore it, or start anew", code="MIM-Y322"
        ) from error
