"""Everything a recipe can get wrong, found before the first trial starts.

Every arm and stage is planned against its model on the meta device, and each data set is opened once.
"""

from dataclasses import dataclass

from mimetic.config.address import Among, ConfigPath
from mimetic.config.errors import Issue, RecipeError
from mimetic.data.load import load_dataset
from mimetic.errors import UserError
from mimetic.graph.site import Graph
from mimetic.models.config import Model
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.study.planning.checks import check_learner, check_metric, check_pairing, check_parts, check_size
from mimetic.study.planning.prospects import prospects
from mimetic.study.planning.sites import Sites, rewritten_sites
from mimetic.study.trials.observe import check_measurements


@dataclass(frozen=True, slots=True)
class Planned:
    """How the arms of a recipe begin.

    Attributes:
        plans: The plan of each arm that has a network.
        graphs: The sites it was made for.
        learners: What each arm and stage that learns without one will do.
    """

    plans: dict[str, Plan]
    graphs: dict[str, Graph]
    learners: dict[tuple[Among, str], tuple[str, ...]]


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
        model: Stands for the models of the arms; looked at without their data.
        seed: Seed of the plans; the recipe's first unless given.
        allow_code: Let `type: python` models run.

    Returns:
        The plans. What rules take from stages that are not trained yet is pending in them.

    Raises:
        RecipeError: With the mistakes of all arms and stages at once.
    """
    planned, issues = Planned({}, {}, {}), list[Issue]()
    chosen = recipe.seeds[0] if seed is None else seed
    for at in recipe.addresses() if arm is None else (recipe.address(arm),):
        section = recipe.section(at)
        other = model if at.among == "arms" else None
        try:
            if at.among == "arms":
                check_metric(recipe, at.name)
            if section.learner is not None:
                planned.learners[at.among, at.name] = check_learner(section, at)
                continue
            if to_run:
                check_parts(section, at)
            sites = _sites(section, at, model=other, allow_code=allow_code)
            plan = _plan(recipe, section, at, sites, seed=chosen, allow_code=allow_code)
        except RecipeError as error:
            issues += error.issues
        except UserError as error:
            issues.append(at.issue(str(error), "model" if section.learner is None else "learner"))
        else:
            if at.among == "arms":
                planned.plans[at.name], planned.graphs[at.name] = plan, sites.graph
    if issues:
        raise RecipeError(issues)
    return planned


def _sites(arm: Arm, at: ConfigPath, *, model: Model | None, allow_code: bool) -> Sites:
    """Return the sites of the network of an arm or a stage, or of another one in its place."""
    if model is not None:
        try:
            return rewritten_sites(model, arm.surgery, None, allow_code=allow_code, at=at)
        except RecipeError:
            raise
        except UserError as error:  # what stands in the recipe is not at fault
            raise RecipeError([Issue(str(error))]) from error
    if arm.model is None:
        hint = "; give one with --model, e.g. --model timm:convmixer_768_32" if at.among == "arms" else ""
        raise UserError(f"{at} names no model{hint}")
    check_pairing(arm, at)
    sites = rewritten_sites(arm.model, arm.surgery, arm.data, allow_code=allow_code, at=at)
    if arm.data is not None:
        check_size(sites.graph.note, at)
        check_measurements(arm, at, sites.graph)
    return sites


def _plan(recipe: Recipe, arm: Arm, at: ConfigPath, sites: Sites, *, seed: int, allow_code: bool) -> Plan:
    harvests = prospects(recipe, arm, at=at, allow_code=allow_code)
    return resolve(arm, sites.graph, seed=seed, at=at, harvests=harvests, rewrites=sites.rewrites)


def open_data(recipe: Recipe) -> dict[str, str]:
    """Load each data set once, so that a missing one is said before anything starts.

    Returns:
        The digest of the images of each arm and stage, by `arms/name` and `stages/name`.

    Raises:
        RecipeError: If a set is missing or damaged; says where to put it.
    """
    digests: dict[str, str] = {}
    opened: dict[str, str] = {}
    for at in recipe.addresses():
        examples = recipe.section(at).data
        assert examples is not None  # `check_parts` has seen to it
        key = examples.model_dump_json()
        if key not in opened:
            try:
                opened[key] = load_dataset(examples).digest
            except UserError as error:
                raise RecipeError([at.issue(str(error), "data")]) from None
        digests[f"{at.among}/{at.name}"] = opened[key]
    return digests
