"""The resolved recipe in the folder of a study: as YAML for people, as JSON for programs.

Workers read the JSON: they validate sections that are complete already, without the YAML machinery.
"""

import json
from pathlib import Path

from mimetic.files import write_text
from mimetic.recipe.recipe import Recipe

RESOLVED = "resolved.yaml"
RECIPE = "recipe.json"


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write a recipe into the folder of a study."""
    from mimetic.recipe.dump import resolved, values_of

    write_text(folder / RESOLVED, resolved(recipe))
    write_text(folder / RECIPE, json.dumps(values_of(recipe)) + "\n")


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of a study; from the YAML where its run was fetched from a tracking server.

    Raises:
        UserError: If the folder has neither file.
    """
    path = folder / RECIPE
    if path.is_file():
        return Recipe.model_validate_json(path.read_bytes())
    from mimetic.recipe.load import load

    return load(folder / RESOLVED)
