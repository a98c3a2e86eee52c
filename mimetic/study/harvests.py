"""What an arm's rules take from trained networks: prospects for its plan, measurements for its trials.

Harvests of networks that do not change are kept as covariance files beside the network, so that the
trials of a study measure each of them once.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from mimetic import data, kernels
from mimetic.covariance import (
    Harvest,
    Network,
    TrainingImages,
    averaged,
    harvest_key,
    harvests_needed,
    kinds_needed,
    measure,
    prospect,
    trained_network,
    training_images,
)
from mimetic.covariance.store import load_harvest, save_harvest
from mimetic.data import Dataset
from mimetic.errors import UserError
from mimetic.graph import Graph, find_sites
from mimetic.models.checkpoint import load_published, load_weights
from mimetic.plan import resolve
from mimetic.recipe import Recipe, load
from mimetic.recipe.base import Spec
from mimetic.recipe.measured import FromNetwork, Learned, Measured, Origin, Patches
from mimetic.recipe.model import Model
from mimetic.recipe.recipe import Arm
from mimetic.recipe.scale import Lsuv
from mimetic.study.layout import Trial
from mimetic.study.learning import learned_file
from mimetic.study.sites import rewritten_sites
from mimetic.study.stages import harvested_seeds, stage_folder, trained_weights
from mimetic.surgery import Network as BuiltNetwork
from mimetic.surgery import build_network
from mimetic.train import WEIGHTS
from mimetic.train.batches import decoder


def prospects(
    recipe: Recipe, arm: Arm, *, allow_code: bool = False
) -> dict[str, Harvest | Network | TrainingImages]:
    """Return what an arm's rules will take, before anything is trained: layers and geometries alone.

    Raises:
        UserError: If a network is missing or has no layers of which that could be measured.
    """
    return {
        key: _prospect(recipe, arm, spec, allow_code=allow_code) for key, spec in harvests_needed(arm).items()
    }


def _check_one(recipe: Recipe, spec: FromNetwork) -> None:
    """Refuse several seeds where one network is meant."""
    if spec.from_.stage is None and spec.from_.arm is None:
        return
    seeds = harvested_seeds(recipe, spec.from_, own=recipe.seeds[0])
    if len(seeds) != 1:
        name = f"{origin_name(spec)}: `{spec.type_name()}`"
        message = f"{name} begins from one network, and this is trained on {len(seeds)} seeds; "
        raise UserError(message + f"choose one, `seeds: [{seeds[0]}]`")


def _prospect(
    recipe: Recipe, arm: Arm, spec: Spec, *, allow_code: bool
) -> Harvest | Network | TrainingImages:
    if isinstance(spec, Lsuv):
        return TrainingImages()
    if isinstance(spec, Learned):
        return _learned_prospect(recipe, spec)
    graph = _meta_graph(recipe, arm, spec, allow_code=allow_code)
    if isinstance(spec, FromNetwork):
        _check_one(recipe, spec)
        return Network(origin_name(spec), graph)
    return prospect(spec, graph, origin_name(spec), kinds=kinds_needed(arm, spec))


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
    shape = data.describe(stage.data)
    assert isinstance(shape, data.DataShape)
    return kernels.prospect(stage.learner, shape, name)


def origin_name(spec: Spec) -> str:
    """Return how plans and messages call the network a section takes from."""
    return called(spec.from_) if isinstance(spec, Measured | FromNetwork) else "the training images"


def _meta_graph(recipe: Recipe, arm: Arm, spec: Spec, *, allow_code: bool) -> Graph:
    """Return the sites of the network a section takes from, without values."""
    source, model = arm, arm.model
    published = False
    if isinstance(spec, Measured | FromNetwork):
        source, model = _where(recipe, arm, spec.from_)
        published = spec.from_.model is not None
    if source.learner is not None and isinstance(spec, Measured | FromNetwork):
        message = (
            f"{origin_name(spec)} learns without a network, and `{spec.type_name()}` is measured on one; "
        )
        raise UserError(message + "use `covariance: {type: learned, from: …}`")
    if model is None or source.data is None:
        raise UserError(f"{origin_name(spec)}: its model and data must be known; give both")
    classes = _classes(model) if published else None
    surgery = () if published else source.surgery
    return rewritten_sites(model, surgery, source.data, classes=classes, allow_code=allow_code).graph


def _where(recipe: Recipe, arm: Arm, origin: Origin) -> tuple[Arm, Model | None]:
    """Return the arm whose data a network was trained on, and the network's section."""
    if origin.stage is not None:
        stage = recipe.stages[origin.stage]
        return stage, stage.model
    if origin.arm is not None:
        other = recipe.arms[origin.arm]
        return other, other.model
    if origin.trial is not None:
        _, trained = _trial_arm(Path(origin.trial))
        return trained, trained.model
    return arm, arm.model if origin.model is None else origin.model


def _classes(model: Model) -> int:
    return 1000 if model.num_classes is None else model.num_classes


def _trial_arm(folder: Path) -> tuple[Recipe, Arm]:
    """Return the recipe and arm of the folder of a trial."""
    recipe_file = folder.parents[1] / "resolved.yaml" if len(folder.parents) > 1 else folder
    if not (folder / WEIGHTS).is_file() or not recipe_file.is_file():
        raise UserError(
            f"{folder} is not the folder of a finished trial: it needs {WEIGHTS}, and its study "
            "resolved.yaml; give a folder like mlruns/studies/<recipe>/<time>/<arm>/seed-0"
        )
    recipe = load(recipe_file)
    if folder.parent.name not in recipe.arms:
        raise UserError(f"{folder}: its study has no arm `{folder.parent.name}`")
    return recipe, recipe.arms[folder.parent.name]


@dataclass(frozen=True, slots=True)
class _Network:
    """A trained network, how it began, and the images it was trained on.

    Attributes:
        name: For messages and plans.
        model: With its trained weights.
        initial: The same network as it began; None where that is not known.
        cache: Folder for its covariance files; None where none may be kept.
    """

    name: str
    model: nn.Module
    initial: nn.Module | None
    cache: Path | None


def gather(
    trial: Trial, recipe: Recipe, arm: Arm, dataset: Dataset
) -> dict[str, Harvest | Network | TrainingImages]:
    """Measure, or read from an earlier trial's file, what an arm's rules take.

    Args:
        trial: The trial that is about to begin.
        recipe: Its recipe.
        arm: Its arm.
        dataset: The arm's images.

    Raises:
        UserError: If a network is missing, not finished or of another architecture.
    """
    found: dict[str, Harvest | Network | TrainingImages] = {}
    for key, spec in harvests_needed(arm).items():
        if isinstance(spec, Lsuv):
            found[key] = training_images(first_images(dataset, spec.images))
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


def _whole(spec: FromNetwork, networks: list[_Network], dataset: Dataset) -> Network:
    """Return a trained network itself, with as many images as its section asks for."""
    (network,) = networks  # `prospects` has refused several
    count = getattr(spec, "images", None)
    images_NCHW = None if count is None else first_images(dataset, count)
    graph = find_sites(network.model, dataset.shape.example())
    return trained_network(network.name, graph, network.model, images_NCHW)


def _learned(trial: Trial, recipe: Recipe, origin: Origin) -> list[Harvest]:
    """Return what the learners an origin names have learned: one harvest, or one for each of its seeds."""
    if origin.stage is None:
        return [load_harvest(learned_file(Path(str(origin.trial)), called(origin)))]
    folder, found = stage_folder(trial.study, origin.stage), []
    for seed in harvested_seeds(recipe, origin, own=trial.seed):
        done = Trial(str(folder), origin.stage, seed)
        found.append(load_harvest(learned_file(done.folder, f"stage {origin.stage}, seed {seed},")))
    return found


def _measured(spec: Spec, network: _Network, dataset: Dataset, *, kinds: frozenset[str] | None) -> Harvest:
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
    harvest = measure(
        spec,
        network.model,
        find_sites(network.model, dataset.shape.example()),
        origin=network.name,
        images_NCHW=images_NCHW,
        initial=network.initial,
        kinds=kinds,
    )
    if file is not None:
        save_harvest(file, harvest)
    return harvest


def first_images(dataset: Dataset, count: int) -> Tensor:
    """Return the first training images as a network sees them: decoded and normalized, not augmented."""
    decode = decoder(dataset.mean, dataset.std, device=torch.device("cpu"), channels_last=False)
    return decode(dataset.pixels(count))


def trial_network(folder: Path, *, allow_code: bool = False) -> tuple[nn.Module, Arm]:
    """Return the trained network of a finished trial, and its arm.

    Raises:
        UserError: If the folder is none of a finished trial, or its arm has no network.
    """
    _, arm = _trial_arm(folder)
    if arm.model is None or arm.data is None:
        raise UserError(f"{folder} has no network; give the folder of a trial that trains one")
    shape = data.describe(arm.data)
    built = build_network(arm.model, arm.surgery, shape=shape, seed=0, allow_code=allow_code).model
    load_weights(built, folder / WEIGHTS)
    return built, arm


def _networks(trial: Trial, recipe: Recipe, arm: Arm, origin: Origin, dataset: Dataset) -> list[_Network]:
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
        folder = Path(origin.trial)
        _, trained = _trial_arm(folder)
        built = _built(trained, dataset, seed=trial.seed, allow_code=trial.allow_code).model
        load_weights(built, folder / WEIGHTS)
        return [_Network(called(origin), built, None, None)]
    section = arm.model if origin.model is None else origin.model
    if section is None:
        raise UserError(f"{called(origin)}: say which network it fits with `model`")
    if origin.model is None:
        built = _built(arm, dataset, seed=trial.seed, allow_code=trial.allow_code).model
    else:
        shape = replace(dataset.shape, num_classes=_classes(section))
        built = build_network(section, shape=shape, seed=trial.seed, allow_code=trial.allow_code).model
    if origin.checkpoint is not None:
        load_weights(built, Path(origin.checkpoint))
    else:
        assert origin.weights is not None
        load_published(built, section, origin.weights)
    return [_Network(called(origin), built, None, None)]


def called(origin: Origin) -> str:
    """Return how plans and messages call an origin."""
    for way in ("stage", "arm", "trial", "checkpoint"):
        if getattr(origin, way) is not None:
            return f"{way} {getattr(origin, way)}"
    assert origin.model is not None
    return f"{getattr(origin.model, 'name', origin.model.type_name())} with weights {origin.weights}"


def _trained_here(folder: Path, name: str, seed: int, *, noun: str, allow_code: bool) -> _Network:
    """Return the trained network of a stage or an arm, and the same network as its plan began it."""
    weights = trained_weights(folder, name, seed, noun=noun)
    recipe = load(folder / "resolved.yaml")
    stage = recipe.arms[name]
    assert stage.data is not None
    dataset = data.load(stage.data)
    trained = _built(stage, dataset, seed=seed, allow_code=allow_code).model
    load_weights(trained, weights)
    built = _built(stage, dataset, seed=seed, allow_code=allow_code)
    initial = built.model
    itself = Trial(str(folder), name, seed, allow_code=allow_code)
    graph = find_sites(initial, dataset.shape.example())
    harvests = gather(itself, recipe, stage, dataset)
    plan = resolve(stage, graph, seed=seed, name=name, harvests=harvests, rewrites=built.rewrites)
    plan.apply(initial)
    return _Network(f"{noun} {name}, seed {seed}", trained, initial, weights.parent)


def _built(arm: Arm, dataset: Dataset, *, seed: int, allow_code: bool) -> BuiltNetwork:
    """Build the network of an arm or a stage, surgery included."""
    assert arm.model is not None
    return build_network(arm.model, arm.surgery, shape=dataset.shape, seed=seed, allow_code=allow_code)
