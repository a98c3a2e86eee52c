"""Digests of the initial weights of every shipped recipe: each arm and stage, at its first seed.

An arm is initialized as a trial does it: build, rewrite, resolve, apply. Nothing is trained and no data set
is read. Where a rule takes a trained network, an untrained stand-in replaces it, measured on a few images, to
run the code of statistics and transfer too:

- a stage or another arm: its network as its own plan initializes it;
- published weights: the same architecture as its library initializes it, keyed by the arm's seed;
- the network at initialization, for `of: change`: the same architecture, unplanned, at the next seed;
- training images: the first images of the synthetic data set, in the shape of the arm's data;
- a learner: the same learner on a few synthetic images.

Run as a script, from the root of the repository, to write the digests of all recipes (about 5 minutes):

    OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.plans.weight_digests
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimetic.config.registry import Component
from mimetic.covariance.config import CovarianceSource, Learned, Patches
from mimetic.covariance.harvest import Harvest, averaged, harvest_key
from mimetic.covariance.measure import measure
from mimetic.covariance.network import TrainedNetwork, TrainingImages
from mimetic.covariance.trained_ref import TrainedRef
from mimetic.data.config import Synthetic
from mimetic.data.dataset import Dataset, example_input
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.data.shapes import IMAGENET, DataShape, ImageShape
from mimetic.graph.names import canonical_buffers, canonical_parameters
from mimetic.graph.sites import find_sites
from mimetic.kernels.learn import harvest, kernel_dtype, run_learner
from mimetic.kernels.problem import make_problem
from mimetic.models.config import Model, Timm, Torchvision
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Arm, Recipe, Stage
from mimetic.recipe.shipped import shipped
from mimetic.sources.collect import Input, needed_inputs
from mimetic.sources.find import harvested_seeds
from mimetic.streams import generator
from mimetic.surgery.network import Network, build_network

STORED = Path(__file__).with_suffix(".json")
IMAGES = 12
"""Most images that a stand-in is measured on."""
LARGE_IMAGES = 2
"""The same for images of `LARGE` pixels or more."""
LARGE = 200 * 200


def weight_digests(recipe: Recipe, wanted: Callable[[Arm], bool] = lambda _: True) -> dict[str, str]:
    """Return the digests of a recipe's initial weights, by arm and by `stages/NAME`.

    Arms with a learner have no weights and are left out, as are those that are not wanted.
    """
    arms = {**recipe.arms, **{f"stages/{name}": stage for name, stage in recipe.stages.items()}}
    stand_ins = StandIns(recipe)
    digests = {}
    for name, arm in arms.items():
        if arm.learner is None and wanted(arm):
            seed = first_seed(recipe, arm)
            content = initialization_content(recipe, arm, seed)
            if content not in _DIGESTS:
                _DIGESTS[content] = digest(stand_ins.initialized(arm, seed))
            digests[name] = _DIGESTS[content]
    return digests


_DIGESTS: dict[str, str] = {}
"""Digests of this process by content: recipes that differ in their data sets alone share their networks."""


def initialization_content(recipe: Recipe, arm: Arm, seed: int) -> str:
    """Return all that the initialization of an arm takes: equal texts, equal weights."""
    inputs = needed_inputs(arm).values()
    refs = [spec.from_ for spec in inputs if isinstance(getattr(spec, "from_", None), TrainedRef)]
    within = any(ref.stage is not None or ref.arm is not None for ref in refs)
    shape, model = shape_of(arm), arm.model
    assert model is not None
    named = [ref.head or num_classes(ref.model, shape) for ref in refs if ref.model is not None]
    if model.num_classes is not None:  # then the data's classes are not the network's
        shape = replace(shape, num_classes=model.num_classes)
    rules = arm.model_copy(update={"data": None, "train": None})
    return repr((rules, shape, named, seed, recipe if within else None))


def first_seed(recipe: Recipe, arm: Arm) -> int:
    """Return the first seed that an arm or a stage is trained on."""
    own = arm.seeds if isinstance(arm, Stage) else None
    return (recipe.seeds if own is None else own)[0]


def digest(model: nn.Module) -> str:
    """Return a digest of the names, dtypes, shapes and bytes of all parameters and buffers."""
    tensors: dict[str, Tensor] = {**canonical_parameters(model), **canonical_buffers(model)}
    state = blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        state.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        state.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def fingerprint() -> dict[str, str]:
    """Return what the bytes of a result depend on beside the code: torch, vector unit, BLAS and LAPACK.

    The last is a digest of what they return for a fixed matrix: MKL, for example, chooses its code by the
    manufacturer of the processor.
    """
    matrix_DD = torch.randn(65, 65, dtype=torch.float64, generator=generator(0, "fingerprint"))
    single_DD = matrix_DD.float()
    probes = (matrix_DD @ matrix_DD, single_DD @ single_DD, *torch.linalg.eigh(matrix_DD + matrix_DD.T))
    state = blake2b(digest_size=16)
    for tensor in probes:
        state.update(tensor.contiguous().numpy())
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu": capability, "linear_algebra": state.hexdigest()}


@dataclass(frozen=True)
class StandIns:
    """Initializes the arms of one recipe from stand-ins of trained networks.

    Attributes:
        recipe: The recipe.
        cache: What was measured, by section, seed, shape of the data and kinds of layers.
    """

    recipe: Recipe
    cache: dict[object, Input] = field(default_factory=dict)

    def initialized(self, arm: Arm, seed: int) -> nn.Module:
        """Return the network of an arm as its plan initializes it."""
        shape = shape_of(arm)
        network = built(arm.model, arm.surgery, shape, seed)
        graph = find_sites(network.model, example_input(shape))
        inputs = {key: self.input(arm, spec, seed) for key, spec in needed_inputs(arm).items()}
        plan = resolve(arm, graph, seed=seed, harvests=inputs, rewrites=network.rewrites)
        plan.apply(network.model)
        return network.model

    def input(self, arm: Arm, spec: Component, seed: int) -> Input:
        """Return what one section of an arm's rules takes."""
        shape, kinds = shape_of(arm), covariance_kinds(arm)
        if spec.takes == "images":
            images_NCHW = images_for(spec, shape)
            assert images_NCHW is not None
            return TrainingImages(images_NCHW)
        if isinstance(spec, Patches):
            own = built(arm.model, arm.surgery, shape, seed).model
            return measure(spec, network_of(own, spec, shape, name="the training images"))
        key = harvest_key(spec), seed, shape, kinds
        if key not in self.cache:
            self.cache[key] = self.from_networks(arm, spec, seed, kinds)
        return self.cache[key]

    def from_networks(self, arm: Arm, spec: Any, seed: int, kinds: frozenset[str] | None) -> Input:
        """Return what a section takes from the networks, or the learners, that it names."""
        ref: TrainedRef = spec.from_
        within = ref.stage is not None or ref.arm is not None
        seeds = harvested_seeds(self.recipe, ref, own=seed) if within else (seed,)
        if isinstance(spec, Learned):
            stage = self.recipe.stages[str(ref.stage)]
            return averaged([learned(stage, one) for one in seeds], origin=ref.display_name)
        if spec.takes == "network":
            (one,) = seeds
            return self.source(arm, spec, one, name=ref.display_name)
        assert isinstance(spec, CovarianceSource)
        harvests = [
            measure(spec, self.source(arm, spec, one, name=f"{ref.display_name}, seed {one}"), kinds=kinds)
            for one in seeds
        ]
        return averaged(harvests, origin=ref.display_name)

    def source(self, arm: Arm, spec: Any, seed: int, *, name: str) -> TrainedNetwork:
        """Return the stand-in of one trained network that a section names."""
        ref: TrainedRef = spec.from_
        shape = shape_of(arm)
        if ref.stage is not None or ref.arm is not None:
            other = self.recipe.arms[str(ref.arm)] if ref.stage is None else self.recipe.stages[ref.stage]
            shape = built_for = shape_of(other)
            model, surgery, standing = other.model, other.surgery, self.initialized(other, seed)
        else:
            assert ref.model is not None
            assert ref.weights is not None, f"no stand-in for `{ref.kind}`"
            built_for = replace(shape, num_classes=ref.head or num_classes(ref.model, shape))
            model, surgery = ref.model, ()
            standing = built(model, (), built_for, seed).model
        initial = None
        if getattr(spec, "of", "weights") == "change":
            initial = built(model, surgery, built_for, seed + 1).model
        return replace(network_of(standing, spec, shape, name=name), initial=initial)


def built(model: Any, surgery: Any, shape: DataShape, seed: int) -> Network:
    """Return a copy of a network as its library initializes it: arms of a recipe share it."""
    if (key := repr((model, surgery, shape, seed))) not in _BUILT:
        while len(_BUILT) >= SHARED:
            del _BUILT[next(iter(_BUILT))]
        _BUILT[key] = build_network(model, surgery, shape=shape, seed=seed)
    return replace(_BUILT[key], model=deepcopy(_BUILT[key].model))


_BUILT: dict[str, Network] = {}
SHARED = 3
"""Networks that are in memory, to be copied."""


def network_of(model: nn.Module, spec: Component, shape: DataShape, *, name: str) -> TrainedNetwork:
    """Return a network with as many images as a section needs."""
    return TrainedNetwork(name, find_sites(model, example_input(shape)), model, images_for(spec, shape))


def learned(stage: Stage, seed: int) -> Harvest:
    """Return the covariances of a stage's learner after it saw a few synthetic images."""
    assert stage.learner is not None
    spec = stage.learner.model_copy(update={"images": IMAGES})
    shape = shape_of(stage)
    assert isinstance(shape, ImageShape)
    dataset = synthetic(shape.channels, shape.height)
    problem = make_problem(spec, dataset, seed=seed, device=torch.device("cpu"), dtype=kernel_dtype(spec))
    rounds = list(run_learner(spec, problem))
    assert isinstance(dataset.shape, ImageShape)
    found = harvest(spec, rounds, dataset.shape, origin=f"learner, seed {seed}", images=len(problem.train))
    assert found is not None
    return found


def shape_of(arm: Arm) -> DataShape:
    """Return the shape of an arm's examples; nothing is loaded."""
    assert arm.data is not None
    return describe_dataset(arm.data)


def num_classes(model: Model, shape: DataShape) -> int:
    """Return the outputs of a network with published weights."""
    if model.num_classes is not None:
        return model.num_classes
    return (IMAGENET if isinstance(model, Torchvision | Timm) else shape).num_classes


def covariance_kinds(arm: Arm) -> frozenset[str] | None:
    """Return the kinds of layers that an arm's covariance rules match; None where one matches any."""
    kinds = {rule.match.kind for rule in arm.init if rule.covariance is not None}
    return None if None in kinds or not kinds else frozenset(kind for kind in kinds if kind is not None)


@lru_cache(maxsize=2)
def synthetic(channels: int, side: int) -> Dataset:
    """Return a small data set: 32 images for training, 16 for validation, 12 for testing."""
    return load_dataset(Synthetic(shape=(channels, side), classes=10, count=48, val_size=16))


def images_for(spec: Component, shape: DataShape) -> Tensor | None:
    """Return the normalized images (N, C, H, W) that a section is measured on; None if it needs none."""
    requested = getattr(spec, "images", None)
    if requested is None:
        return None
    assert isinstance(shape, ImageShape)
    dataset = synthetic(shape.channels, shape.height)
    most = LARGE_IMAGES if shape.height * shape.width >= LARGE else IMAGES
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (dataset.mean, dataset.std))
    return (dataset.pixels(min(requested, most)).float() / 255.0 - mean_C11) / std_C11


def write(path: Path, digests: Mapping[str, Mapping[str, str]]) -> None:
    """Write digests with the fingerprint of this machine."""
    text = json.dumps({"fingerprint": fingerprint(), "digests": digests}, indent=1, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    write(STORED, {name: weight_digests(load(path)) for name, path in shipped().items()})
