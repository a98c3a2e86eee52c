"""Create the folder of a new study, or find that of one to resume."""

import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from mimetic.errors import UserError
from mimetic.files import check_contained, read_regular, write_text
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
        for index, (file, text) in enumerate(recipe.sources.items()):
            write_text(folder / ("recipe.yaml" if index == 0 else f"extends/{Path(file).name}"), text)
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


def find_to_continue(root: Path, recipe: Recipe) -> Path:
    """Return the folder of the latest study of a recipe, to be resumed.

    Raises:
        UserError: If there is none, or its recipe differs; shows the first difference.
    """
    found = list(studies(root, recipe.name))
    if not found:
        raise UserError(
            f"there is no study of `{recipe.name}` below {root} to resume; run it without --resume",
            code="MIM-Y320",
        )
    folder = found[-1].resolve()
    check_contained(folder)
    read_record(folder)
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
    return folder


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); restore it, or start anew", code="MIM-Y322"
        ) from error
