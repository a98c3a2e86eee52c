"""From a recipe to its plans: with the arms' own models, or one named on the command line."""

from typing import TYPE_CHECKING

from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.recipe.recipe import Recipe
    from mimetic.study.planning.arms import Planned


def planned(
    recipe: "Recipe", *, arm: str | None, model: str | None, allow_code: bool, seed: int | None = None
) -> "Planned":
    """Return the plans of one arm, or of all, as a run would make them.

    Raises:
        UserError: If there is no such arm or model.
        RecipeError: With the mistakes of the arm, or of all arms and stages, at once.
    """
    from mimetic.api import choose_arm
    from mimetic.models.argument import parse_model_argument
    from mimetic.study.fetching import with_local_runs
    from mimetic.study.planning.arms import plan_recipe

    return plan_recipe(
        with_local_runs(recipe, DEFAULT_ROOT),
        to_run=False,
        arm=None if arm is None else choose_arm(recipe, arm),
        model=None if model is None else parse_model_argument(model),
        seed=seed,
        allow_code=allow_code,
    )


def without_network(arm: str) -> str:
    """Say that an arm has no parameters."""
    return (
        f"arm `{arm}` learns without a network: no parameter begins there; `mimetic plan` says what it does"
    )
