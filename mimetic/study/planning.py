"""Everything a recipe can get wrong, found before the first trial starts.

Every arm and stage is planned against its model on the meta device, and each data set is opened once.
"""

from dataclasses import dataclass

from mimetic import data
from mimetic.errors import UserError
from mimetic.graph import Graph
from mimetic.plan import Plan, resolve
from mimetic.recipe import Issue, Recipe, RecipeError
from mimetic.recipe.model import Model
from mimetic.recipe.recipe import Among, Arm
from mimetic.study.checks import check_learner, check_metric, check_pairing, check_parts, check_size
from mimetic.study.observe import check_measurements
from mimetic.study.prospects import prospects
from mimetic.study.sites import Sites, rewritten_sites

Member = tuple[Among, str]
"""An arm or a stage of a recipe, e.g. ("arms", "default")."""


@dataclass(frozen=True, slots=True)
class Planned:
    """How the arms of a recipe begin.

    Attributes:
        plans: The plan of each arm that has a network.
        graphs: The sites it was made for.
        learners: What each arm or stage that learns without one will do.
    """

    plans: dict[str, Plan]
    graphs: dict[str, Graph]
    learners: dict[Member, tuple[str, ...]]


def plan_arms(recipe: Recipe, *, allow_code: bool = False) -> dict[str, Plan]:
    """Return the plans of a recipe that is to be run; see `plan_recipe`.

    Raises:
        RecipeError: With the mistakes of all arms and stages at once, missing parts among them.
    """
    return plan_recipe(recipe, to_run=True, allow_code=allow_code).plans


def plan_recipe(
    recipe: Recipe,
    *,
    to_run: bool,
    arm: str | None = None,
    model: Model | None = None,
    seed: int | None = None,
    allow_code: bool = False,
) -> Planned:
    """Plan every arm, and check every stage the same way.

    Args:
        recipe: The recipe.
        to_run: Whether model, data and training must be there, as they need not to look at a plan.
        arm: Plan this one alone.
        model: Stands for the models of the arms.
        seed: Seed of the plans; the recipe's first unless given.
        allow_code: Let `type: python` models run.

    Returns:
        The plans. What rules take from stages that are not trained yet is pending in them.

    Raises:
        RecipeError: With the mistakes of all arms and stages at once.
    """
    members: list[Member] = [("arms", name) for name in recipe.arms if arm in {None, name}]
    members += [("stages", name) for name in recipe.stages if arm is None]
    found, issues = Planned({}, {}, {}), list[Issue]()
    for family, name in members:
        learns = getattr(recipe, family)[name].learner is not None
        other = model if family == "arms" and not learns else None
        try:
            if learns:
                found.learners[family, name] = check_learner(recipe, family, name)
                continue
            if to_run:
                check_parts(recipe, family, name)
            sites = _sites(recipe, family, name, model=other, allow_code=allow_code)
            plan = _plan(recipe, family, name, sites, seed=seed, allow_code=allow_code)
        except RecipeError as error:
            issues += error.issues
        except UserError as error:
            place = (family, name, "learner" if learns else "model")
            here = Issue(str(error), place, recipe.where(*place))
            issues.append(here if other is None else Issue(str(error)))  # the recipe's own is not at fault
        else:
            if family == "arms":
                found.plans[name], found.graphs[name] = plan, sites.graph
    if issues:
        raise RecipeError(issues)
    return found


def _sites(recipe: Recipe, family: Among, name: str, *, model: Model | None, allow_code: bool) -> Sites:
    """Return the sites of a member's network, or of another model, which is looked at without its data."""
    arm: Arm = getattr(recipe, family)[name]
    check_metric(recipe, family, name)
    spec = arm.model if model is None else model
    if spec is None:
        message = f"{family.removesuffix('s')} `{name}` of `{recipe.name}` names no model; give one with "
        raise UserError(message + "--model, e.g. --model timm:convmixer_768_32")
    examples, where = arm.data if model is None else None, recipe.place_in(name, among=family)
    if model is None:
        check_pairing(recipe, family, name)
    sites = rewritten_sites(spec, arm.surgery, examples, allow_code=allow_code, name=name, where=where)
    if examples is not None:
        check_size(recipe, family, name, sites.graph.note)
        check_measurements(recipe, family, name, sites.graph)
    return sites


def _plan(
    recipe: Recipe, family: Among, name: str, sites: Sites, *, seed: int | None, allow_code: bool
) -> Plan:
    arm: Arm = getattr(recipe, family)[name]
    return resolve(
        arm,
        sites.graph,
        seed=recipe.seeds[0] if seed is None else seed,
        name=name,
        where=recipe.place_in(name, among=family),
        harvests=prospects(recipe, arm, allow_code=allow_code),
        rewrites=sites.rewrites,
    )


def open_data(recipe: Recipe) -> dict[str, str]:
    """Load each data set once, so that a missing one is said before anything starts.

    Returns:
        The digest of the images of each arm and stage, by `arms/name` and `stages/name`.

    Raises:
        RecipeError: If a set is missing or damaged; says where to put it.
    """
    digests: dict[str, str] = {}
    opened: dict[str, str] = {}
    for family in ("arms", "stages"):
        for name, arm in getattr(recipe, family).items():
            key = arm.data.model_dump_json()
            if key not in opened:
                try:
                    opened[key] = data.load(arm.data).digest
                except UserError as error:
                    where = recipe.where(family, name, "data")
                    raise RecipeError([Issue(str(error), (family, name, "data"), where, None)]) from None
            digests[f"{family}/{name}"] = opened[key]
    return digests
