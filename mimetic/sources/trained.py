"""A trained network, wherever it comes from: built, loaded, planned from, or measured.

`mimetic.sources.find` makes one of the `from:` of a recipe, `mimetic.cli.networks` of the options of a verb,
`mimetic.api` of a network in memory.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from mimetic.config.registry import Component
from mimetic.covariance.config import CovarianceSource
from mimetic.covariance.harvest import Harvest, harvest_key
from mimetic.covariance.measure import measure, planned_harvest
from mimetic.covariance.network import Initial, TrainedNetwork
from mimetic.covariance.store import load_harvest, save_harvest
from mimetic.data.dataset import Dataset, example_input
from mimetic.data.shapes import IMAGENET, DataShape, ImageShape
from mimetic.errors import UserError
from mimetic.graph.site import Graph
from mimetic.graph.sites import find_sites
from mimetic.journal import read_journal, status
from mimetic.kernels import learn as kernels
from mimetic.kernels.config import Learner
from mimetic.models.checkpoint import load_weights
from mimetic.models.config import Model
from mimetic.models.published import load_published
from mimetic.surgery.config import Rewrite
from mimetic.surgery.network import Network, build_network
from mimetic.train.batches import decoder

LEARNED = "learned.safetensors"
"""The covariances that a trial with a `learner` learned, beside its journal."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedSource:
    """A network that is trained, or will be: of a stage, an arm, a trial, a file, a library, or in memory.

    Attributes:
        name: Its name in messages and plans, e.g. `stage small, seed 0`.
        model: Its section; None where it is unknown, in memory, or replaced by a learner.
        surgery: What is rewritten in it.
        shape: Shape of its data; None where they are unknown.
        num_classes: Number of its outputs; the data's unless given.
        seed: Seed of its training, and of its own initialization.
        allow_code: Whether a `type: python` model may run.
        weights: File of its weights, or a function that finds it and raises where training did not finish.
        published: Name of published weights of its library.
        own_head: Whether its last layer is its own, untrained, instead of the trained one.
        module: The network itself, where it is in memory.
        initial: Builds the same network as its plan initialized it; None where that is unknown.
        learner: What learns in its place.
        folder: Folder of its trial; None before training, and for networks that are not trials.
        cached: Whether its harvests are cached in that folder.
    """

    name: str
    model: Model | None = None
    surgery: tuple[Rewrite, ...] = ()
    shape: DataShape | None = None
    num_classes: int | None = None
    seed: int = 0
    allow_code: bool = False
    weights: Path | Callable[[], Path] | None = None
    published: str | None = None
    own_head: bool = False
    module: nn.Module | None = None
    initial: Callable[[], nn.Module] | None = None
    learner: Learner | None = None
    folder: Path | None = None
    cached: bool = False

    def build(self, *, meta: bool = False, seed: int | None = None) -> Network:
        """Return the network with its own initialization, surgery included.

        Args:
            meta: Whether it is built without values.
            seed: Another seed than its own.

        Raises:
            UserError: If its model is unknown or cannot be built.
        """
        if self.model is None:
            raise UserError(f"{self.name}: its model is unknown; give `model`", code="MIM-S001")
        shape = IMAGENET if self.shape is None else self.shape
        return build_network(
            self.model,
            self.surgery,
            shape=shape if self.num_classes is None else replace(shape, num_classes=self.num_classes),
            seed=self.seed if seed is None else seed,
            allow_code=self.allow_code,
            meta=meta,
            traced=self.shape is not None,
        )

    def load(self) -> nn.Module:
        """Return the network with its trained weights, on the CPU unless it is in memory.

        One without weights, as `patches` takes it for its layers, has its own initialization.

        Raises:
            UserError: If the weights are of another network.
            RunError: If its training did not finish.
        """
        if self.module is not None:
            return self.module
        # Finding the weights first reports an unfinished training before anything is built.
        weights = self.weights() if callable(self.weights) else self.weights
        model = self.build().model
        if weights is not None:
            load_weights(model, weights, own_head=self.own_head)
        elif self.published is not None and self.model is not None:
            load_published(model, self.model, self.published, own_head=self.own_head)
        return model

    def graph(self) -> Graph:
        """Return the sites of the network, traced with an input of its data's shape, without values.

        Raises:
            UserError: If the model cannot be built, or a weights file is of another network.
        """
        if self.module is not None:
            return find_sites(self.module)
        model = self.build(meta=True).model
        if isinstance(self.weights, Path) and self.folder is None:
            # On the meta device only names, shapes and finiteness are checked.
            load_weights(model, self.weights, own_head=self.own_head)
        return find_sites(model, self._example(None))

    def network(self, images_NCHW: Tensor | None = None, *, initial: Initial | None = None) -> TrainedNetwork:
        """Return the loaded network with its graph and images, as statistics and initializers take it."""
        model = self.load()
        example = None if images_NCHW is None or len(images_NCHW) == 0 else images_NCHW[:2]
        return TrainedNetwork(
            self.name, find_sites(model, self._example(example)), model, images_NCHW, initial
        )

    def available(self, spec: Component, *, kinds: Collection[str] | None = None) -> Harvest | TrainedNetwork:
        """Return what a section will take once the network is trained: layers and geometries, no values.

        Raises:
            UserError: If it has no such layers, or no network.
        """
        if spec.takes == "learned":
            return self._available_learned()
        if self.learner is not None:
            raise UserError(
                f"{self.name} learns without a network, and `{spec.type_name()}` is measured on one; "
                "use `covariance: {type: learned, from: …}`",
                code="MIM-S003",
            )
        if self.model is None or self.shape is None:
            raise UserError(f"{self.name}: its model and data must be known; give both", code="MIM-S004")
        if not isinstance(spec, CovarianceSource):
            return TrainedNetwork(self.name, self.graph())
        return planned_harvest(spec, self.graph(), self.name, kinds=kinds)

    def measure(
        self,
        spec: CovarianceSource,
        images: Callable[[int], Tensor] | None = None,
        *,
        images_digest: str = "",
        kinds: Collection[str] | None = None,
    ) -> Harvest:
        """Return the covariances of the trained network's layers, from the cache where they are there.

        The cache belongs to the network, so nothing of the trial that needs it may enter but what its key
        contains.

        Args:
            spec: A section that is measured, or `learned`.
            images: Returns the first so many training images as the network sees them.
            images_digest: Digest of the data they are from.
            kinds: Kinds of layers to measure; all unless given.

        Raises:
            UserError: If something cannot be measured, weights are not finite, or images do not fit.
            RunError: If its training did not finish.
        """
        if spec.takes == "learned":
            return load_harvest(self._learned_file())
        # 1. A cached harvest is that of this section, code and data.
        count = images_needed(spec)
        file = None
        if self.cached and self.folder is not None:
            key = cache_key(spec, kinds=kinds, images_digest=images_digest if count else "")
            file = self.folder / f"harvest-{key}.safetensors"
            if file.is_file():
                with suppress(UserError):  # damaged, or of an earlier version: it is measured again
                    return load_harvest(file)
        # 2. Otherwise the network is loaded and measured, and the harvest is cached.
        images_NCHW = None if count is None or images is None else images(count)
        initial = self.initial() if getattr(spec, "needs_initial", False) and self.initial else None
        network = self.network(images_NCHW, initial=initial)
        harvest = measure(spec, network, kinds=kinds)
        if file is not None:
            save_harvest(file, harvest, about={"version": spec.version})
        return harvest

    def _example(self, example: Tensor | None) -> Tensor | None:
        return example if self.shape is None else example_input(self.shape)

    def _available_learned(self) -> Harvest:
        if self.folder is not None:
            return replace(load_harvest(self._learned_file()), origin=self.name)
        if self.learner is None or not isinstance(self.shape, ImageShape):
            raise UserError(
                f"{self.name} trains a network, and `learned` is what a `learner` learned; "
                "use `filters`, `nfm` or `agop`, or give the stage a `learner`",
                code="MIM-S005",
            )
        return kernels.planned_harvest(self.learner, self.shape, self.name)

    def _learned_file(self) -> Path:
        assert self.folder is not None
        path = self.folder / LEARNED
        if path.is_file():
            return path
        state = status(read_journal(self.folder / "journal.jsonl"))
        raise UserError(
            f"{self.name} has no {LEARNED} in {self.folder} (the trial there is {state}); "
            "name one whose arm has a `learner` that learns features and has finished",
            code="MIM-S006",
        )


def cache_key(spec: CovarianceSource, *, kinds: Collection[str] | None, images_digest: str) -> str:
    """Return the key of a network's cached harvest: the section, the version of its code, layers, images."""
    layers = "" if kinds is None else ",".join(sorted(kinds))
    content = f"{harvest_key(spec)}|v{spec.version}|{layers}|{images_digest}"
    return blake2b(content.encode(), digest_size=8).hexdigest()


def images_needed(spec: Component) -> int | None:
    """Return how many training images a section takes; None where it takes none."""
    count = getattr(spec, "images", None)
    return count if isinstance(count, int) else None


def first_images(dataset: Dataset, count: int) -> Tensor:
    """Return the first training images as a network sees them: decoded and normalized, not augmented."""
    decode = decoder(dataset.mean, dataset.std, device=torch.device("cpu"), channels_last=False)
    return decode(dataset.pixels(count))
