"""MLflow runs a recipe begins from, brought to this machine before anything is planned.

Workers never speak to MLflow, so a recipe is rewritten: `{run: ID}` becomes the folder of a trial.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mimetic.config.base import Section
from mimetic.config.errors import Issue, RecipeError, Step
from mimetic.covariance.config import TrainedRef
from mimetic.errors import UserError
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.stages import origins
from mimetic.train.checkpoint import WEIGHTS


def with_local_runs(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with every `from: {run: ID}` as `from: {trial: FOLDER}`; itself where there is none.

    Raises:
        RecipeError: With every run that is not there, or is no finished trial.
        RunError: If the store does not work.
    """
    folders: dict[str, Path] = {}
    issues: dict[str, Issue] = {}
    for path, run in _runs(recipe):
        if run in folders or run in issues:
            continue
        from mimetic.tracking.fetch import fetch_trial

        try:
            folders[run] = fetch_trial(root, run, weights=WEIGHTS)
        except UserError as error:
            hint = "give the id of a finished trial's run, 32 digits as `mimetic ui` shows them"
            issues[run] = Issue(str(error), path, recipe.where(*path), hint)
    if issues:
        raise RecipeError(tuple(issues.values()))

    def local(origin: TrainedRef) -> TrainedRef:
        if origin.run is None:
            return origin
        return origin.model_copy(update={"run": None, "trial": str(folders[origin.run])})

    found = _with(recipe, local)
    assert isinstance(found, Recipe)
    return found


def _runs(recipe: Recipe) -> Iterator[tuple[tuple[Step, ...], str]]:
    """Yield the runs that rules name, and where."""
    for at in recipe.addresses():
        for rule in recipe.section(at).init:
            for path, origin in origins(rule):
                if origin.run is not None:
                    yield (at.among, at.name, "init", rule.id, *path, "run"), origin.run


def _with(value: Any, change: Callable[[TrainedRef], TrainedRef]) -> Any:
    """Return a section with its origins changed, and the very same one where none is."""
    if isinstance(value, TrainedRef):
        return change(value)
    if isinstance(value, Section):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        updates = {name: new for name, old in fields.items() if (new := _with(old, change)) is not old}
        return value.model_copy(update=updates) if updates else value
    if isinstance(value, tuple):
        items = tuple(_with(item, change) for item in value)
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if isinstance(value, Mapping):
        entries = {key: _with(item, change) for key, item in value.items()}
        return entries if any(entries[key] is not item for key, item in value.items()) else value
    return value
