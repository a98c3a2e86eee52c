"""From the `executor` of a recipe to what trains its trials. All give a trial the same final metrics."""

from collections.abc import Sequence
from pathlib import Path

from mimetic.config.registry import implementation
from mimetic.recipe.recipe import Recipe
from mimetic.study.executors.executor import ExecutorRequest, TrialExecutor
from mimetic.study.executors.ranks import world_size
from mimetic.study.executors.torchrun import TorchrunExecutor
from mimetic.study.layout import Trial


def pick_executor(
    recipe: Recipe, trials: Sequence[Trial], *, logs: Path, workers: int | None, address: str | None
) -> TrialExecutor:
    """Return the executor of a recipe, or torchrun's if this process is one of several.

    `workers` overrides the recipe; `logs` is the folder for the output of workers.
    """
    if world_size() > 1:
        return TorchrunExecutor()
    request = ExecutorRequest(
        devices=frozenset(trial.device for trial in trials),
        workers=recipe.study.workers if workers is None else workers,
        slots=recipe.study.slots,
        logs=logs,
        address=address,
    )
    executor: TrialExecutor = implementation(recipe.study.executor)(recipe.study.executor, request)
    return executor


def check_executor(recipe: Recipe, *, address: str | None, store: str | None) -> None:
    """Refuse an executor that cannot run here, before a study is created.

    Calls `check(spec, address=…, store=…)` of its section, if it names one.

    `store` is the URI of the tracking store, None if the study is not tracked.

    Raises:
        UserError: If it cannot run.
    """
    spec = recipe.study.executor
    if "check" in spec.functions:
        implementation(spec, "check")(spec, address=address, store=store)
