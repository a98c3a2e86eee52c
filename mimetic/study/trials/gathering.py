"""What a trial takes from trained networks, once they are trained: their covariances, or themselves.

Harvests of networks that do not change are kept as covariance files beside the network, so that the
trials of a study measure each of them once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from mimetic.config.address import ConfigPath
from mimetic.covariance.config import CovarianceSource, Learned, Lsuv, Measured, Patches, TrainedRef
from mimetic.covariance.harvest import Harvest, averaged, harvest_key
from mimetic.covariance.measure import measure
from mimetic.covariance.network import TrainedNetwork, TrainingImages
from mimetic.covariance.store import load_harvest, save_harvest
from mimetic.data.dataset import Dataset, example_input
from mimetic.data.load import load_dataset
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites
from mimetic.initializers.config import FromNetwork
from mimetic.models.checkpoint import load_weights
from mimetic.models.published import load_published
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.saved import read_recipe
from mimetic.sources.needs import harvests_needed, kinds_needed
from mimetic.study.layout import Trial
from mimetic.study.stages import harvested_seeds, stage_folder, trained_weights
from mimetic.study.trials.learning import learned_file
from mimetic.study.trials.origins import origin_classes, origin_name, trial_network
from mimetic.surgery.network import Network as BuiltNetwork
from mimetic.surgery.network import build_network
from mimetic.train.batches import decoder


@dataclass(frozen=True, slots=True)
class _Network:
    """A trained network, and how it began.

    Attributes:
        name: For messages and plans.
        model: With its trained weights.
        initial: Builds the same network as it began; None where that is not known.
        cache: Folder for its covariance files; None where none may be kept.
    """

    name: str
    model: nn.Module
    initial: Callable[[], nn.Module] | None
    cache: Path | None


def gather(
    trial: Trial, recipe: Recipe, arm: Arm, dataset: Dataset
) -> dict[str, Harvest | TrainedNetwork | TrainingImages]:
    """Measure, or read from an earlier trial's file, what an arm's rules take.

    Args:
        trial: The trial that is about to begin.
        recipe: Its recipe.
        arm: Its arm.
        dataset: The arm's images.

    Raises:
        UserError: If a network is missing, not finished or of another architecture.
    """
    found: dict[str, Harvest | TrainedNetwork | TrainingImages] = {}
    for key, spec in harvests_needed(arm).items():
        if isinstance(spec, Lsuv):
            found[key] = TrainingImages(first_images(dataset, spec.images))
        elif isinstance(spec, FromNetwork):
            found[key] = _whole(spec, _networks(trial, recipe, arm, spec.from_, dataset), dataset)
        elif isinstance(spec, Patches):
            built = _built(arm, dataset, seed=trial.seed, allow_code=trial.allow_code).model
            images = _Network("the training images", built, None, None)
            found[key] = _measured(spec, images, dataset, kinds=None)
        elif isinstance(spec, Learned):
            found[key] = averaged(_learned(trial, recipe, spec.from_), origin=origin_name(spec))
        elif isinstance(spec, Measured):
            networks = _networks(trial, recipe, arm, spec.from_, dataset)
            kinds = kinds_needed(arm, spec)
            harvests = [_measured(spec, network, dataset, kinds=kinds) for network in networks]
            found[key] = averaged(harvests, origin=origin_name(spec))
    return found


def _whole(spec: FromNetwork, networks: list[_Network], dataset: Dataset) -> TrainedNetwork:
    """Return a trained network itself, with as many images as its section asks for."""
    (network,) = networks  # `prospects` has refused several
    count = getattr(spec, "images", None)
    images_NCHW = None if count is None else first_images(dataset, count)
    graph = find_sites(network.model, example_input(dataset.shape))
    return TrainedNetwork(network.name, graph, network.model, images_NCHW)


def _learned(trial: Trial, recipe: Recipe, origin: TrainedRef) -> list[Harvest]:
    """Return what the learners an origin names have learned: one harvest, or one for each of its seeds."""
    if origin.stage is None:
        return [load_harvest(learned_file(Path(str(origin.trial)), origin.display_name))]
    folder, found = stage_folder(trial.study, origin.stage), []
    for seed in harvested_seeds(recipe, origin, own=trial.seed):
        done = Trial(str(folder), origin.stage, seed)
        found.append(load_harvest(learned_file(done.folder, f"stage {origin.stage}, seed {seed},")))
    return found


def _measured(
    spec: CovarianceSource, network: _Network, dataset: Dataset, *, kinds: frozenset[str] | None
) -> Harvest:
    """Return a harvest of a network, from its file where one is kept.

    Nothing of the trial that asks first may enter: the file serves all of them.
    """
    count = getattr(spec, "images", None)
    wanted = "" if kinds is None else ",".join(sorted(kinds))
    content = f"{harvest_key(spec)}|{wanted}|{dataset.digest if count else ''}"
    key = blake2b(content.encode(), digest_size=8).hexdigest()
    file = None if network.cache is None else network.cache / f"harvest-{key}.safetensors"
    if file is not None and file.is_file():
        return load_harvest(file)
    images_NCHW = None if count is None else first_images(dataset, count)
    compared = getattr(spec, "needs_initial", False)
    initial = network.initial() if compared and network.initial is not None else None
    graph = find_sites(network.model, example_input(dataset.shape))
    trained = TrainedNetwork(network.name, graph, network.model, images_NCHW, initial)
    harvest = measure(spec, trained, kinds=kinds)
    if file is not None:
        save_harvest(file, harvest)
    return harvest


def first_images(dataset: Dataset, count: int) -> Tensor:
    """Return the first training images as a network sees them: decoded and normalized, not augmented."""
    decode = decoder(dataset.mean, dataset.std, device=torch.device("cpu"), channels_last=False)
    return decode(dataset.pixels(count))


def _networks(trial: Trial, recipe: Recipe, arm: Arm, origin: TrainedRef, dataset: Dataset) -> list[_Network]:
    """Return the trained networks an origin names: one, or one for each of its seeds."""
    name = origin.arm if origin.stage is None else origin.stage
    if name is not None:
        noun = "arm" if origin.stage is None else "stage"
        folder = Path(trial.study) if noun == "arm" else stage_folder(trial.study, name)
        return [
            _trained_here(folder, name, seed, noun=noun, allow_code=trial.allow_code)
            for seed in harvested_seeds(recipe, origin, own=trial.seed)
        ]
    if origin.trial is not None:
        built, _ = trial_network(Path(origin.trial), allow_code=trial.allow_code)
        return [_Network(origin.display_name, built, None, None)]
    section = arm.model if origin.model is None else origin.model
    if section is None:
        raise UserError(f"{origin.display_name}: say which network it fits with `model`")
    if origin.model is None:
        built = _built(arm, dataset, seed=trial.seed, allow_code=trial.allow_code).model
    else:
        shape = replace(dataset.shape, num_classes=origin_classes(section, dataset.shape.num_classes))
        built = build_network(section, shape=shape, seed=trial.seed, allow_code=trial.allow_code).model
    if origin.checkpoint is not None:
        load_weights(built, Path(origin.checkpoint))
    else:
        assert origin.weights is not None
        load_published(built, section, origin.weights)
    return [_Network(origin.display_name, built, None, None)]


def _trained_here(folder: Path, name: str, seed: int, *, noun: str, allow_code: bool) -> _Network:
    """Return the trained network of a stage or an arm, which knows how its plan began it."""
    weights = trained_weights(folder, name, seed, noun=noun)
    itself = Trial(str(folder), name, seed, allow_code=allow_code)
    recipe = read_recipe(folder)
    stage = recipe.arms[name]
    assert stage.data is not None
    dataset = load_dataset(stage.data)
    trained = _built(stage, dataset, seed=seed, allow_code=allow_code).model
    load_weights(trained, weights)
    initial = partial(_begun, itself, recipe, dataset)
    return _Network(f"{noun} {name}, seed {seed}", trained, initial, weights.parent)


def _begun(trial: Trial, recipe: Recipe, dataset: Dataset) -> nn.Module:
    """Return the network of a trial as its plan began it."""
    arm = recipe.arms[trial.arm]
    built = _built(arm, dataset, seed=trial.seed, allow_code=trial.allow_code)
    graph = find_sites(built.model, example_input(dataset.shape))
    harvests = gather(trial, recipe, arm, dataset)
    at = ConfigPath(name=trial.arm)
    plan = resolve(arm, graph, seed=trial.seed, at=at, harvests=harvests, rewrites=built.rewrites)
    plan.apply(built.model)
    return built.model


def _built(arm: Arm, dataset: Dataset, *, seed: int, allow_code: bool) -> BuiltNetwork:
    """Build the network of an arm or a stage, surgery included."""
    assert arm.model is not None
    return build_network(arm.model, arm.surgery, shape=dataset.shape, seed=seed, allow_code=allow_code)
