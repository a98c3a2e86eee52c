"""Find the folders and trials of stages: trainings whose networks are harvested, shared by all studies.

A stage is a study of one arm in a folder named by a digest of its content: its recipe, its images, and the
stages it harvests. So it is trained once for all recipes, and again if anything that affects its weights
changes.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from mimetic.covariance.config import TrainedRef
from mimetic.errors import RunError, UserError
from mimetic.files import write_text
from mimetic.journal import read_journal, status
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.saved import write_recipe
from mimetic.recipe.stages import origins, stages_of
from mimetic.study.layout import Trial
from mimetic.train.checkpoint import WEIGHTS

FOLDERS = "stages.json"
"""Beside `resolved.yaml`: the folder of each stage the study harvests."""


def prepare_stages(recipe: Recipe, root: Path, digests: Mapping[str, str]) -> dict[str, Path]:
    """Make the folders of a recipe's stages, those harvested by others first.

    Args:
        recipe: The recipe.
        root: Folder of the runs.
        digests: Digest of the images of each stage, by `stages/name`.

    Returns:
        The folder of each stage, in an order in which they can be trained.
    """
    folders: dict[str, Path] = {}
    for name in recipe.stage_order():
        stage = recipe.stages[name]
        upstream = {other: folders[other] for other in _closure(recipe, name)}
        content = [stage.model_dump_json(by_alias=True, exclude={"seeds"}), digests[f"stages/{name}"]]
        content += [folder.name for folder in upstream.values()]
        content += [
            str(harvested_seeds(recipe, origin, own=-1)) for _, origin in origins(stage.init) if origin.stage
        ]
        key = blake2b("\n".join(content).encode(), digest_size=6).hexdigest()
        folder = (root / "stages" / f"{name}-{key}").resolve()
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
        write_folders(folder, upstream)
        folders[name] = folder
    return folders


def stage_seeds(recipe: Recipe, name: str) -> tuple[int, ...]:
    """Return the seeds a stage is trained on: its own, or the study's."""
    seeds = recipe.stages[name].seeds
    return recipe.seeds if seeds is None else seeds


def harvested_seeds(recipe: Recipe, origin: TrainedRef, *, own: int) -> tuple[int, ...]:
    """Return the seeds of a stage or an arm that a trial of the seed `own` harvests."""
    if isinstance(origin.seeds, tuple):
        return origin.seeds
    if origin.seeds == "own" and (origin.stage is None or recipe.stages[origin.stage].seeds is None):
        return (own,)
    return recipe.seeds if origin.stage is None else stage_seeds(recipe, origin.stage)


def stage_trials(
    recipe: Recipe, folders: Mapping[str, Path], trial: Callable[[Path, str, int], Trial]
) -> list[Trial]:
    """Return the trials of all stages, stage by stage in the order of their folders.

    Args:
        recipe: The recipe.
        folders: The folder of each stage.
        trial: Makes the trial of a folder, a stage and a seed.
    """
    return [
        trial(folder, name, seed) for name, folder in folders.items() for seed in stage_seeds(recipe, name)
    ]


def write_folders(study: Path, folders: Mapping[str, Path]) -> None:
    """Write where the stages of a study lie."""
    text = json.dumps({name: str(folder) for name, folder in folders.items()}, indent=1)
    write_text(study / FOLDERS, f"{text}\n")


def read_folders(study: str | Path) -> dict[str, Path]:
    """Return where the stages of a study lie; empty where it has none."""
    path = Path(study) / FOLDERS
    folders = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: Path(folder) for name, folder in folders.items()}


def stage_folder(study: str | Path, name: str) -> Path:
    """Return the folder of a stage a study harvests.

    Raises:
        UserError: If the study has no such stage.
    """
    folders = read_folders(study)
    if name not in folders:
        raise UserError(
            f"{Path(study) / FOLDERS} has no stage `{name}`; run the recipe again", code="MIM-Y004"
        )
    return folders[name]


def trained_weights(folder: Path, name: str, seed: int, *, noun: str = "stage") -> Path:
    """Return the file with the final weights of a stage or an arm.

    Raises:
        RunError: If its training did not finish, or its weights are not kept; says why.
    """
    trial = Trial(str(folder), name, seed)
    events = read_journal(trial.journal)
    path = trial.folder / WEIGHTS
    if status(events) == "FINISHED" and not path.is_file():
        raise RunError(
            f"{noun} `{name}`, seed {seed}, finished without saving its weights; leave "
            "`train.checkpoint.keep_weights` at true",
            code="MIM-Y005",
        )
    if status(events) != "FINISHED":
        reason = next(
            (e["reason"] for e in reversed(events) if e["event"] == "end" and e.get("reason")), None
        )
        why = f": {reason}" if reason is not None else ""
        raise RunError(
            f"{noun} `{name}`, seed {seed}, is {status(events)}{why}; see {trial.folder}", code="MIM-Y006"
        )
    return path


def _closure(recipe: Recipe, name: str) -> list[str]:
    """Return the stages a stage harvests, directly or through others, in the recipe's order."""
    needed: set[str] = set()
    waiting = list(stages_of(recipe.stages[name].init))
    while waiting:
        other = waiting.pop()
        if other not in needed:
            needed.add(other)
            waiting += stages_of(recipe.stages[other].init)
    return [other for other in recipe.stage_order() if other in needed]
