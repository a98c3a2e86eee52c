"""The resolved recipe in the folder of a study: as YAML for people, as JSON for programs.

Workers read the JSON: they validate sections that are complete already, without the YAML machinery.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mimetic.errors import UserError
from mimetic.files import parse_json, read_regular, write_text
from mimetic.recipe.recipe import Recipe

RESOLVED = "resolved.yaml"
RECIPE = "recipe.json"
RUNS = "runs.json"
"""The folder of the trial that each `from: {run: ID}` names."""


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write a recipe into the folder of a study."""
    from mimetic.recipe.dump import resolved, values_of

    write_text(folder / RESOLVED, resolved(recipe))
    write_text(folder / RECIPE, json.dumps(values_of(recipe)) + "\n")


def write_run_folders(folder: Path, recipe: Recipe) -> None:
    """Write the folders of a recipe's runs into its study."""
    if recipe.run_folders:
        write_folders(folder / RUNS, recipe.run_folders)


def write_folders(path: Path, folders: Mapping[str, Path]) -> None:
    """Write folders by name, relative to the folder of the file: their root may be moved."""
    here = path.parent.resolve()
    relative = {name: os.path.relpath(folder.resolve(), here) for name, folder in folders.items()}
    write_text(path, json.dumps(relative, indent=1) + "\n")


def read_folders(path: Path) -> dict[str, Path]:
    """Return the folders in a file of `write_folders`; none where there is no file.

    Raises:
        OSError, ValueError, TypeError, AttributeError: If the file is damaged.
    """
    if not path.is_file():
        return {}
    here = path.parent.resolve()
    return {name: (here / folder).resolve() for name, folder in parse_json(read_regular(path)).items()}


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of a study; from the YAML where its run was fetched from a tracking server.

    Raises:
        UserError: If the folder has neither file, or a damaged one.
    """
    runs = _read_run_folders(folder)
    path = folder / RECIPE
    if path.is_file():
        try:
            return Recipe.model_validate_json(read_regular(path)).with_run_folders(runs)
        except (OSError, ValueError) as error:  # pydantic's errors are ValueErrors
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is damaged ({reason}); remove it", code="MIM-R080") from error
    from mimetic.recipe.load import load

    return load(folder / RESOLVED).with_run_folders(runs)


def _read_run_folders(folder: Path) -> dict[str, Path]:
    path = folder / RUNS
    try:
        return read_folders(path)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); run the recipe again", code="MIM-R086") from error
