"""What the rules of an arm take from trained networks and data: before anything is trained, and after."""

from functools import partial

from mimetic.config.address import MAIN, ConfigPath
from mimetic.config.errors import Issue, RecipeError, Step
from mimetic.config.registry import Component
from mimetic.covariance.config import CovarianceSource
from mimetic.covariance.harvest import Harvest, averaged, harvest_key
from mimetic.covariance.network import TrainedNetwork, TrainingImages
from mimetic.data.dataset import Dataset
from mimetic.errors import UserError
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.stages import origins, values_in
from mimetic.sources.find import Consumer, find_sources
from mimetic.sources.trained import TrainedSource, first_images, images_needed

Input = Harvest | TrainedNetwork | TrainingImages
"""What a rule takes: covariances, a network, or images."""


def needed_inputs(arm: Arm) -> dict[str, Component]:
    """Return the sections of an arm's rules that take a trained network or data, by `harvest_key`.

    Covariance files are not among them: they are read where a plan is made.
    """
    parts = (part for rule in arm.init for part in (rule.covariance, rule.init, rule.scale))
    specs = (spec for _, spec in values_in(tuple(parts), Component))
    return {harvest_key(spec): spec for spec in specs if spec.needs is not None}


def kinds_needed(arm: Arm, spec: Component) -> frozenset[str] | None:
    """Return the kinds of layers that an arm's rules take from a harvest; None where it may be any.

    A network's large linear layers take minutes to measure, so only what is needed is. Harvests of other
    kinds are cached apart.
    """
    kinds: set[str] = set()
    for rule in arm.init:
        if all(spec != own for _, own in values_in(rule.covariance, Component)):
            continue
        layers, own = getattr(spec, "layers", "depth"), getattr(spec, "kind", None)
        kind = rule.match.kind if own is None else own
        if kind is None or layers != "depth":
            return None
        kinds.add(kind)
    return frozenset(kinds)


def planned_inputs(
    recipe: Recipe,
    arm: Arm,
    *,
    at: ConfigPath = MAIN,
    allow_code: bool = False,
    stored_only: bool = False,
) -> dict[str, Input]:
    """Return what an arm's rules will take, before anything is trained: layers and geometries, no values.

    Args:
        recipe: The recipe.
        arm: An arm or a stage of it.
        at: Its place in the recipe, for messages.
        allow_code: Let `type: python` models run.
        stored_only: Leave out what is not in a file of weights.

    Raises:
        RecipeError: With every network that is missing, does not fit its checkpoint, or has no layers where
            the statistic can be measured, at its place.
        UserError: If the arm's own network has no such layers.
    """
    consumer = Consumer(recipe=recipe, arm=arm, seed=recipe.seeds[0], allow_code=allow_code)
    found: dict[str, Input] = {}
    issues: list[Issue] = []
    for key, spec in needed_inputs(arm).items():
        ref = getattr(spec, "from_", None)
        if stored_only and (ref is None or ref.tensors is None):
            continue
        try:
            found[key] = _planned(spec, consumer)
        except UserError as error:
            keys = _keys(arm, spec)
            if keys is None or isinstance(error, RecipeError):
                raise
            issues.append(at.issue(str(error), *keys, code=error.code))
    if issues:
        raise RecipeError(issues)
    return found


def collect_inputs(consumer: Consumer, dataset: Dataset) -> dict[str, Input]:
    """Measure, or read from the cache, what an arm's rules take, once its networks are trained.

    Raises:
        UserError: If a network is missing, not finished or of another architecture.
    """
    return {key: _collected(spec, consumer, dataset) for key, spec in needed_inputs(consumer.arm).items()}


def _planned(spec: Component, consumer: Consumer) -> Input:
    if spec.needs == "images":
        return TrainingImages()
    sources = find_sources(getattr(spec, "from_", None), consumer)
    if spec.needs == "network":
        return _only(spec, sources).available(spec)
    return sources[0].available(spec, kinds=kinds_needed(consumer.arm, spec))


def _collected(spec: Component, consumer: Consumer, dataset: Dataset) -> Input:
    count = images_needed(spec)
    if spec.needs == "images":
        return TrainingImages(first_images(dataset, count or 0))
    ref = getattr(spec, "from_", None)
    sources = find_sources(ref, consumer)
    if spec.needs == "network":
        images_NCHW = None if count is None else first_images(dataset, count)
        return _only(spec, sources).network(images_NCHW)
    assert isinstance(spec, CovarianceSource)
    kinds, images = kinds_needed(consumer.arm, spec), partial(first_images, dataset)
    harvests = [source.measure(spec, images, images_digest=dataset.digest, kinds=kinds) for source in sources]
    return averaged(harvests, origin=sources[0].name if ref is None else ref.display_name)


def _only(spec: Component, sources: list[TrainedSource]) -> TrainedSource:
    if len(sources) != 1:
        raise UserError(
            f"{sources[0].name}: `{spec.type_name()}` takes one network, and this is trained on "
            f"{len(sources)} seeds; choose one, `seeds: [{sources[0].seed}]`",
            code="MIM-S020",
        )
    return sources[0]


def _keys(arm: Arm, spec: Component) -> tuple[Step, ...] | None:
    """Return where an arm names the network a section takes; None where it names none."""
    for rule in arm.init:
        for path, ref in origins(rule):
            if ref is getattr(spec, "from_", None):
                return ("init", rule.id, *path)
    return None
