"""What an arm's rules will take from trained networks, before anything is trained: layers and geometries.

A plan is made from it, so that what does not fit is found before the first stage begins.
"""

from dataclasses import replace
from pathlib import Path

from mimetic.config.address import MAIN, ConfigPath
from mimetic.config.errors import Issue, RecipeError, Step
from mimetic.config.registry import Component
from mimetic.covariance.config import CovarianceSource, Learned, Lsuv, Measured, TrainedRef
from mimetic.covariance.harvest import Harvest
from mimetic.covariance.measure import planned_harvest
from mimetic.covariance.network import TrainedNetwork, TrainingImages
from mimetic.covariance.store import load_harvest
from mimetic.data.load import describe_dataset
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.graph.site import Graph
from mimetic.initializers.config import FromNetwork
from mimetic.kernels import learn as kernels
from mimetic.models.checkpoint import load_weights
from mimetic.models.config import Model
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.stages import origins
from mimetic.sources.needs import harvests_needed, kinds_needed
from mimetic.study.planning.sites import rewritten_sites
from mimetic.study.stages import harvested_seeds
from mimetic.study.trials.learning import learned_file
from mimetic.study.trials.origins import origin_classes, origin_name, trial_arm
from mimetic.surgery.network import build_network


def prospects(
    recipe: Recipe, arm: Arm, *, at: ConfigPath = MAIN, allow_code: bool = False
) -> dict[str, Harvest | TrainedNetwork | TrainingImages]:
    """Return what an arm's rules will take, before anything is trained: layers and geometries alone.

    Args:
        recipe: The recipe.
        arm: An arm or a stage of it.
        at: Where that stands in the recipe, for messages.
        allow_code: Let `type: python` models run.

    Raises:
        RecipeError: With every network that is missing, does not fit its checkpoint, or has no layers of
            which that could be measured, at its place.
        UserError: If the arm's own network has no such layers.
    """
    found: dict[str, Harvest | TrainedNetwork | TrainingImages] = {}
    issues: list[Issue] = []
    for key, spec in harvests_needed(arm).items():
        try:
            found[key] = _prospect(recipe, arm, spec, allow_code=allow_code)
        except UserError as error:
            keys = _keys(arm, spec)
            if keys is None or isinstance(error, RecipeError):
                raise
            issues.append(at.issue(str(error), *keys))
    if issues:
        raise RecipeError(issues)
    return found


def _keys(arm: Arm, spec: Component) -> tuple[Step, ...] | None:
    """Return where an arm names the network a section takes from; None where it names none."""
    if isinstance(spec, Measured | FromNetwork):
        for rule in arm.init:
            for path, origin in origins(rule):
                if origin is spec.from_:
                    return ("init", rule.id, *path)
    return None


def _prospect(
    recipe: Recipe, arm: Arm, spec: Component, *, allow_code: bool
) -> Harvest | TrainedNetwork | TrainingImages:
    if isinstance(spec, Lsuv):
        return TrainingImages()
    if isinstance(spec, Learned):
        return _learned_prospect(recipe, spec)
    graph = _meta_graph(recipe, arm, spec, allow_code=allow_code)
    if isinstance(spec, FromNetwork):
        _check_one(recipe, spec)
        return TrainedNetwork(origin_name(spec), graph)
    assert isinstance(spec, CovarianceSource)
    return planned_harvest(spec, graph, origin_name(spec), kinds=kinds_needed(arm, spec))


def _check_one(recipe: Recipe, spec: FromNetwork) -> None:
    """Refuse several seeds where one network is meant."""
    if spec.from_.stage is None and spec.from_.arm is None:
        return
    seeds = harvested_seeds(recipe, spec.from_, own=recipe.seeds[0])
    if len(seeds) != 1:
        name = f"{origin_name(spec)}: `{spec.type_name()}`"
        message = f"{name} begins from one network, and this is trained on {len(seeds)} seeds; "
        raise UserError(message + f"choose one, `seeds: [{seeds[0]}]`")


def _learned_prospect(recipe: Recipe, spec: Learned) -> Harvest:
    """Return what a learner gives: known before it has learned from a stage, read where it has."""
    name = origin_name(spec)
    if spec.from_.trial is not None:
        return replace(load_harvest(learned_file(Path(spec.from_.trial), name)), origin=name)
    assert spec.from_.stage is not None
    stage = recipe.stages[spec.from_.stage]
    if stage.learner is None or stage.data is None:
        message = f"{name} trains a network, and `learned` is what a `learner` learned; "
        raise UserError(message + "use `filters`, `nfm` or `agop`, or give the stage a `learner`")
    shape = describe_dataset(stage.data)
    assert isinstance(shape, ImageShape)
    return kernels.planned_harvest(stage.learner, shape, name)


def _meta_graph(recipe: Recipe, arm: Arm, spec: Component, *, allow_code: bool) -> Graph:
    """Return the sites of the network a section takes from, without values."""
    source, model = arm, arm.model
    own = False
    if isinstance(spec, Measured | FromNetwork):
        source, model = _where(recipe, arm, spec.from_)
        own = spec.from_.model is not None
    if source.learner is not None and isinstance(spec, Measured | FromNetwork):
        message = (
            f"{origin_name(spec)} learns without a network, and `{spec.type_name()}` is measured on one; "
        )
        raise UserError(message + "use `covariance: {type: learned, from: …}`")
    if model is None or source.data is None:
        raise UserError(f"{origin_name(spec)}: its model and data must be known; give both")
    shape = describe_dataset(source.data)
    classes = origin_classes(model, shape.num_classes) if own else None
    surgery = () if own else source.surgery
    if isinstance(spec, Measured | FromNetwork) and spec.from_.checkpoint is not None:
        shape = shape if classes is None else replace(shape, num_classes=classes)
        built = build_network(model, surgery, shape=shape, allow_code=allow_code, meta=True).model
        # Nothing is copied on the meta device, but names and shapes are compared, and values must be finite.
        load_weights(built, Path(spec.from_.checkpoint))
    return rewritten_sites(model, surgery, source.data, classes=classes, allow_code=allow_code).graph


def _where(recipe: Recipe, arm: Arm, origin: TrainedRef) -> tuple[Arm, Model | None]:
    """Return the arm whose data a network was trained on, and the network's section."""
    if origin.stage is not None:
        stage = recipe.stages[origin.stage]
        return stage, stage.model
    if origin.arm is not None:
        other = recipe.arms[origin.arm]
        return other, other.model
    if origin.trial is not None:
        trained = trial_arm(Path(origin.trial))
        return trained, trained.model
    return arm, arm.model if origin.model is None else origin.model
