"""Executors: what trains the trials of a study. All give the same final metrics for a trial.

pool     worker processes of this machine (the default)
team     the processes torchrun started, which train each trial together
ray      tasks of a Ray cluster
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from mimetic.recipe.recipe import Recipe
from mimetic.study.executors.cluster import Cluster
from mimetic.study.executors.executor import Executor
from mimetic.study.executors.pool import Pool, cores
from mimetic.study.executors.team import Team, team_size
from mimetic.study.layout import Trial


def pick_executor(
    recipe: Recipe, trials: Sequence[Trial], *, logs: Path, workers: int | None, address: str | None
) -> Executor:
    """Return the executor a recipe asks for.

    Args:
        recipe: The recipe.
        trials: What is to be trained.
        logs: Folder for what workers say.
        workers: Worker processes; the recipe's, or one per core or slot of a GPU unless given.
        address: The Ray cluster.
    """
    if team_size() > 1:
        return Team()
    if recipe.study.executor == "ray":
        return Cluster(address=address, slots=recipe.study.slots)
    wanted = recipe.study.workers if workers is None else workers
    # A GPU named by its number is the recipe's choice: then every worker sees all of them. Otherwise they
    # are dealt out to the workers.
    devices = {trial.device for trial in trials}
    named = devices - {"auto", "cuda", "cpu"}
    dealt = not named and not devices <= {"cpu"} and torch.cuda.is_available()
    gpus = torch.cuda.device_count() if dealt else 0
    count = _workers(wanted, accelerators=max(gpus, len(named)), slots=recipe.study.slots)
    return Pool(workers=count, gpus=gpus, logs=logs)


def _workers(wanted: int | None, *, accelerators: int, slots: int) -> int:
    """Return how many workers there are: `slots` for each GPU, or one for each core where there is none."""
    if wanted is not None:
        return wanted
    return accelerators * slots if accelerators else cores()
