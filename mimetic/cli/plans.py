"""Plan a recipe for a verb: with the arms' own models, or one named on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING

from mimetic.errors import UserError

if TYPE_CHECKING:
    from mimetic.plans.plan import Plan
    from mimetic.recipe.recipe import Recipe
    from mimetic.study.planning.arms import Planned


def planned(
    recipe: "Recipe",
    *,
    arm: str | None,
    model: str | None,
    root: Path,
    allow_code: bool,
    seed: int | None = None,
) -> "Planned":
    """Plan one arm, or all, as a run below the same root would.

    Raises:
        UserError: If there is no such arm or model.
        RecipeError: With the mistakes of the arm, or of all arms and stages, at once.
    """
    from mimetic.api import choose_arm
    from mimetic.models.config import parse_model_argument
    from mimetic.study.fetching import with_local_runs
    from mimetic.study.planning.arms import plan_recipe

    return plan_recipe(
        with_local_runs(recipe, root),
        to_run=False,
        arm=None if arm is None else choose_arm(recipe, arm),
        model=None if model is None else parse_model_argument(model),
        seed=seed,
        allow_code=allow_code,
    )


def plans_of(
    recipe: "Recipe",
    *,
    arm: str | None,
    model: str | None,
    root: Path,
    allow_code: bool,
    seed: int | None = None,
) -> "dict[str, Plan]":
    """Return the plans of one arm, or of all; see `planned`.

    Raises:
        UserError: If no arm has a network.
    """
    found = planned(recipe, arm=arm, model=model, root=root, seed=seed, allow_code=allow_code)
    if not found.plans:
        raise UserError(
            f"arm `{next(iter(recipe.arms)) if arm is None else arm}` learns without a network and has no "
            "parameters to initialize; see `mimetic plan`",
            code="MIM-X010",
        )
    return found.plans
