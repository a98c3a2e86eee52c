"""What a process reuses between trials: recipe, data, and the network, reinitialized in place."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mimetic.config.address import MAIN, ConfigPath
from mimetic.data.dataset import Dataset, example_input
from mimetic.data.load import load_dataset
from mimetic.graph.site import Graph
from mimetic.graph.sites import find_sites
from mimetic.models.build import reinitialize
from mimetic.models.config import PythonModel
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.saved import read_recipe
from mimetic.surgery.network import build_network
from mimetic.surgery.rewrite import Rewritten


@dataclass(frozen=True, slots=True)
class TracedNetwork:
    """A network with its own initialization or on the meta device, what surgery replaced, and its sites."""

    model: nn.Module
    rewrites: tuple[Rewritten, ...]
    graph: Graph


class TrialCache:
    """Recipes, data and network of the earlier trials of a process.

    An architecture is traced once. Its model is built once, too, as long as trials of one architecture
    follow each other: only the last model is retained, since two may not fit into memory.
    """

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}
        self._data: dict[str, Dataset] = {}
        self._graphs: dict[str, Graph] = {}
        self._last: tuple[str, TracedNetwork] | None = None

    def recipe(self, study: str) -> Recipe:
        """Return the resolved recipe of a study."""
        if study not in self._recipes:
            self._recipes[study] = read_recipe(Path(study))
        return self._recipes[study]

    def dataset(self, arm: Arm) -> Dataset:
        """Return the data an arm is trained on."""
        assert arm.data is not None
        key = arm.data.model_dump_json()
        if key not in self._data:
            self._data.clear()  # one data set at a time: several may not fit into memory
            self._data[key] = load_dataset(arm.data)
        return self._data[key]

    def network(
        self, arm: Arm, dataset: Dataset, *, seed: int, at: ConfigPath = MAIN, allow_code: bool = False
    ) -> TracedNetwork:
        """Return the arm's network with its own initialization, surgery included.

        The previous trial's model is reused for the same architecture and training: its tensors keep their
        place, so a compiled graph stays valid, and its values are those of a new model, bit for bit.
        Models from the user's code, and models that surgery changes, are always built anew.
        """
        assert arm.model is not None
        shape = dataset.shape
        surgery = [rewrite.model_dump_json() for rewrite in arm.surgery]
        architecture = f"{arm.model.model_dump_json()}|{surgery}|{shape}"
        key = f"{architecture}|{arm.train}"
        if self._last is not None and self._last[0] == key:
            network = self._last[1]
            reinitialize(
                network.model, arm.model, in_channels=shape.channels, num_classes=shape.num_classes, seed=seed
            )
            return network
        self._last = None  # before the new one is built
        built = build_network(arm.model, arm.surgery, shape=shape, seed=seed, allow_code=allow_code, at=at)
        own_code = isinstance(arm.model, PythonModel)
        if own_code or architecture not in self._graphs:
            self._graphs[architecture] = find_sites(built.model, example_input(shape))
        network = TracedNetwork(built.model, built.rewrites, self._graphs[architecture])
        if not arm.surgery and not own_code:
            self._last = key, network
        return network
