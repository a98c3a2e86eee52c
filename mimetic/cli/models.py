"""From a recipe to sites and plans: with the arm's own model, or one named on the command line."""

from functools import partial
from typing import TYPE_CHECKING

from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.plan import Plan
    from mimetic.recipe import Recipe
    from mimetic.study.sites import Sites

IMAGENET_SHAPE = (3, 224, 224, 1000)
"""Channels, height, width and classes, where a model is looked at without its data."""


def sites_of(recipe: "Recipe", arm: str, *, model: str | None, allow_code: bool) -> "Sites":
    """Return the sites of an arm's network, built and rewritten on the meta device.

    Raises:
        UserError: If neither the recipe nor the command line names a model.
        RecipeError: If a rewrite of the arm does not fit the model.
    """
    from mimetic import models
    from mimetic.data import DataShape
    from mimetic.graph import find_sites
    from mimetic.study.sites import Sites, rewritten_sites
    from mimetic.surgery import build_network

    if recipe.arms[arm].learner is not None:
        raise UserError(without_network(arm))
    spec = models.parse_model_argument(model) if model is not None else recipe.arms[arm].model
    if spec is None:
        raise UserError(
            f"arm `{arm}` of `{recipe.name}` names no model; give one with --model, "
            "e.g. --model timm:convmixer_768_32"
        )
    images, surgery, where = recipe.arms[arm].data, recipe.arms[arm].surgery, recipe.place_in(arm)
    if images is None or model is not None:
        built = build_network(
            spec,
            surgery,
            shape=DataShape(*IMAGENET_SHAPE),
            allow_code=allow_code,
            meta=True,
            traced=False,
            name=arm,
            where=where,
        )
        return Sites(find_sites(built.model), built.rewrites)
    return rewritten_sites(spec, surgery, images, allow_code=allow_code, name=arm, where=where)


def without_network(arm: str) -> str:
    """Say that an arm has no parameters."""
    return (
        f"arm `{arm}` learns without a network: no parameter begins there; `mimetic plan` says what it does"
    )


def learners_of(recipe: "Recipe", *, arm: str | None) -> dict[str, tuple[str, ...]]:
    """Return what learners will do, of one arm, or of all arms and stages, by `arm x` and `stage x`."""
    from mimetic.study.planning import Member, check_learner, each_of

    members: list[Member] = [("arms", name) for name in recipe.arms if arm in (None, name)]
    members += [("stages", name) for name in recipe.stages if arm is None]
    sections = {member: getattr(recipe, member[0])[member[1]].learner for member in members}
    learners = [member for member in members if sections[member] is not None]
    found = each_of(recipe, learners, partial(check_learner, recipe))
    return {
        f"{family.removesuffix('s')} {name}: {sections[family, name].type_name()}": lines
        for (family, name), lines in found.items()
    }


def plans_of(
    recipe: "Recipe", *, arm: str | None, seed: int | None, model: str | None, allow_code: bool
) -> dict[str, "Plan"]:
    """Return the plan of one arm or of all that have a network, with the mistakes of all of them at once."""
    from mimetic.api import choose_arm
    from mimetic.plan import resolve
    from mimetic.recipe import Issue, RecipeError
    from mimetic.study.fetching import with_local_runs
    from mimetic.study.planning import each_of
    from mimetic.study.prospects import prospects

    recipe = with_local_runs(recipe, DEFAULT_ROOT)
    names = list(recipe.arms) if arm is None else [choose_arm(recipe, arm)]

    def plan(_family: str, name: str) -> "Plan":
        try:
            sites = sites_of(recipe, name, model=model, allow_code=allow_code)
            return resolve(
                recipe.arms[name],
                sites.graph,
                seed=recipe.seeds[0] if seed is None else seed,
                name=name,
                where=recipe.place_in(name),
                harvests=prospects(recipe, recipe.arms[name], allow_code=allow_code),
                rewrites=sites.rewrites,
            )
        except UserError as error:
            if model is None or isinstance(error, RecipeError):
                raise
            raise RecipeError([Issue(str(error))]) from error  # the recipe's own model is not at fault

    found = each_of(recipe, [("arms", name) for name in names if recipe.arms[name].learner is None], plan)
    return {name: made for (_, name), made in found.items()}
