"""MLflow runs a recipe begins from, brought to this machine before anything is planned.

Workers never speak to MLflow, so a recipe is rewritten: `{run: ID}` becomes the folder of a trial.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mimetic.recipe import Recipe
from mimetic.recipe.base import Section
from mimetic.recipe.measured import Origin
from mimetic.train import WEIGHTS


def with_local_runs(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with every `from: {run: ID}` as `from: {trial: FOLDER}`; itself where there is none.

    Raises:
        UserError: If there is no such run, or it is no finished trial.
        RunError: If the store does not work.
    """

    def local(origin: Origin) -> Origin:
        if origin.run is None:
            return origin
        from mimetic.tracking.fetch import fetch_trial

        folder = fetch_trial(root, origin.run, weights=WEIGHTS)
        return origin.model_copy(update={"run": None, "trial": str(folder)})

    found = _with(recipe, local)
    assert isinstance(found, Recipe)
    return found


def _with(value: Any, change: Callable[[Origin], Origin]) -> Any:
    """Return a section with its origins changed, and the very same one where none is."""
    if isinstance(value, Origin):
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
