"""Plan every arm and stage of a recipe, and find all its mistakes before the first trial starts.

Each is planned against its model on the meta device, and each data set is opened once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mimetic.config.address import Among, ConfigPath
from mimetic.config.errors import Issue, RecipeError
from mimetic.data.config import DataSection
from mimetic.data.dataset import example_input
from mimetic.data.load import load_dataset
from mimetic.data.shapes import IMAGENET
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites
from mimetic.initializers.config import Default
from mimetic.models.config import Model, PythonModel
from mimetic.plans.own_values import with_own_values
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.sources.collect import planned_inputs
from mimetic.study.planning.checks import (
    check_learner,
    check_pairing,
    check_size,
    require,
    required_data,
    shape_of,
)
from mimetic.study.trials.cache import TracedNetwork
from mimetic.study.trials.observe import check_measurements
from mimetic.surgery.config import Rewrite
from mimetic.surgery.network import build_network


@dataclass(frozen=True, slots=True)
class Planned:
    """What the arms and stages of a recipe will do.

    Plans are those of the arms with a network; learners, what each arm and stage without one will do.
    """

    plans: dict[str, Plan] = field(default_factory=dict)
    learners: dict[tuple[Among, str], tuple[str, ...]] = field(default_factory=dict)


def plan_arms(recipe: Recipe, *, allow_code: bool = False) -> dict[str, Plan]:
    """Return the plans of a recipe that is to be run; see `plan_recipe`.

    Raises:
        RecipeError: With the mistakes of all arms and stages at once, missing parts included.
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
        to_run: Whether model, data and training must be present, which a plan alone does not need.
        arm: Plan only this one.
        model: Replaces the models of the arms; planned without their data.
        seed: Seed of the plans; the recipe's first unless given.
        allow_code: Let `type: python` models run.

    Returns:
        The plans. What rules take from stages that are not trained yet is pending in them.

    Raises:
        RecipeError: With the mistakes of all arms and stages at once.
    """
    planned, issues, known = Planned(), list[Issue](), _KnownNetworks(allow_code=allow_code)
    for at in recipe.addresses() if arm is None else (recipe.address(arm),):
        section = recipe.section(at)
        try:
            if section.learner is not None:
                planned.learners[at.among, at.name] = check_learner(section, at)
                continue
            if to_run:
                require(section, at, "model", "data", "train")
            other = model if at.among == "arms" else None
            # What a model initializes itself is built only to compare it with `init: default`.
            meta = to_run or not any(isinstance(rule.init, Default) for rule in section.init)
            network = known.of_arm(section, at, other, meta=meta)
            plan = resolve(
                section,
                network.graph,
                seed=recipe.seeds[0] if seed is None else seed,
                at=at,
                harvests=planned_inputs(recipe, section, at=at, allow_code=allow_code),
                rewrites=network.rewrites,
            )
            if at.among == "arms":
                planned.plans[at.name] = with_own_values(plan, network.model)
        except RecipeError as error:
            issues += error.issues
        except UserError as error:
            key = "model" if section.learner is None else "learner"
            issues.append(at.issue(str(error), key, code=error.code))
    if issues:
        raise RecipeError(issues)
    return planned


class _KnownNetworks:
    """The network of each arm, built and traced once for all arms that have it.

    Networks with weights, and those of the user's code, are built for each arm.
    """

    def __init__(self, *, allow_code: bool) -> None:
        self._allow_code = allow_code
        self._known: dict[str, TracedNetwork] = {}

    def of_arm(self, arm: Arm, at: ConfigPath, model: Model | None, *, meta: bool) -> TracedNetwork:
        """Return the network of an arm or a stage, or of the model that replaces its own."""
        if model is not None:
            try:
                return self._once(model, arm.surgery, None, meta=meta, at=at)
            except RecipeError:
                raise
            except UserError as error:  # the model is not the recipe's, so there is no position to show
                raise RecipeError([Issue(str(error), code=error.code)]) from error
        if arm.model is None:
            hint = "; give one with --model, e.g. --model timm:convmixer_768_32" if at.among == "arms" else ""
            raise UserError(f"{at} has no model{hint}", code="MIM-Y310")
        check_pairing(arm, at)
        network = self._once(arm.model, arm.surgery, arm.data, meta=meta, at=at)
        if arm.data is not None:
            check_size(network.graph.note, at)
            check_measurements(arm, at, network.graph)
        return network

    def _once(
        self,
        model: Model,
        surgery: Sequence[Rewrite],
        examples: DataSection | None,
        *,
        meta: bool,
        at: ConfigPath,
    ) -> TracedNetwork:
        parts = (model, *surgery, *filter(None, (examples,)))
        key = "|".join(part.model_dump_json() for part in parts)
        if key in self._known and meta and not isinstance(model, PythonModel):
            return self._known[key]
        network = traced_network(model, surgery, examples, allow_code=self._allow_code, meta=meta, at=at)
        if meta:
            self._known[key] = network
        return network


def traced_network(
    model: Model,
    surgery: Sequence[Rewrite],
    examples: DataSection | None,
    *,
    allow_code: bool,
    meta: bool,
    at: ConfigPath,
) -> TracedNetwork:
    """Build and trace a network after its surgery; `meta` allocates no weights.

    Only the shape of the examples is read.

    Raises:
        RecipeError: If the data are missing or damaged, or with every mistake of the rewrites at once.
    """
    shape = IMAGENET if examples is None else shape_of(examples, at)
    known = examples is not None
    built = build_network(model, surgery, shape=shape, allow_code=allow_code, meta=meta, traced=known, at=at)
    graph = find_sites(built.model, example_input(shape) if known else None)
    return TracedNetwork(built.model, built.rewrites, graph)


def open_data(recipe: Recipe) -> dict[str, str]:
    """Load each data set once, and report missing or damaged data before anything starts.

    Returns:
        The digest of the images of each arm and stage, by `arms/name` and `stages/name`.

    Raises:
        RecipeError: If a data set is missing or damaged, with where to put it.
    """
    digests: dict[str, str] = {}
    opened: dict[str, str] = {}
    for at in recipe.addresses():
        data = required_data(recipe.section(at), at)
        key = data.model_dump_json()
        if key not in opened:
            try:
                opened[key] = load_dataset(data).digest
            except UserError as error:
                raise RecipeError([at.issue(str(error), "data", code=error.code)]) from None
        digests[f"{at.among}/{at.name}"] = opened[key]
    return digests
