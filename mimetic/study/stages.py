"""Find the folders and trials of stages: trainings whose networks are harvested, shared by all studies.

A stage is a study of one arm in a folder named by a digest of its content: its recipe, its images, and the
stages it harvests. So it is trained once for all recipes, and again if anything that affects its weights
changes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from mimetic.config.address import ConfigPath
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.saved import write_recipe, write_run_folders
from mimetic.sources.find import stage_seeds, write_stage_folders
from mimetic.study.contents import closure, stage_names
from mimetic.study.layout import Trial


def prepare_stages(recipe: Recipe, root: Path, digests: Mapping[str, str]) -> dict[str, Path]:
    """Make the folders of a recipe's stages, those harvested by others first.

    `digests` are those of the images of each stage, by `stages/name`.

    Returns:
        The folder of each stage, in an order in which they can be trained.
    """
    folders: dict[str, Path] = {}
    for name, folder_name in stage_names(recipe, digests).items():
        stage = recipe.stages[name]
        upstream = {other: folders[other] for other in closure(recipe, name)}
        folder = (root / "stages" / folder_name).resolve()
        alone = recipe.model_copy(
            update={
                "name": name,
                "description": None,
                "baseline": None,
                "arms": {name: Arm(**{part: getattr(stage, part) for part in Arm.model_fields})},
                "stages": {other: recipe.stages[other] for other in upstream},
            }
        )
        write_recipe(folder, alone)
        write_run_folders(folder, alone)
        write_stage_folders(folder, upstream)
        folders[name] = folder
    return folders


def stage_trials(
    recipe: Recipe, folders: Mapping[str, Path], trial: Callable[[Path, ConfigPath, int], Trial]
) -> list[Trial]:
    """Return the trials of all stages, stage by stage in the order of their folders.

    `trial` makes the trial of a folder, a stage and a seed.
    """
    return [
        trial(folder, recipe.address(name, "stages"), seed)
        for name, folder in folders.items()
        for seed in stage_seeds(recipe, name)
    ]
