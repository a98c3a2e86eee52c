"""The resolved recipe in the folder of a study: as YAML for people, as JSON for programs.

Workers read the JSON: they validate sections that are complete already, without the YAML machinery.
"""

import json
from pathlib import Path

from mimetic.errors import UserError
from mimetic.files import read_regular, write_text
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
        UserError: If the folder has neither file, or a damaged one.
    """
    path = folder / RECIPE
    if path.is_file():
        try:
            return Recipe.model_validate_json(read_regular(path))
        except (OSError, ValueError) as error:  # pydantic's errors are ValueErrors
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is damaged ({reason}); remove it", code="MIM-R080") from error
    from mimetic.recipe.load import load

    return load(folder / RESOLVED)
