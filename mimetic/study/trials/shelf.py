"""What a worker keeps between trials: the recipe, the data, and the model, begun anew in place."""

from pathlib import Path

from mimetic.config.address import MAIN, ConfigPath
from mimetic.data.dataset import Dataset
from mimetic.data.load import load_dataset
from mimetic.models.build import reinitialize
from mimetic.models.config import PythonModel
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.surgery.network import Network, build_network


class TrialCache:
    """What earlier trials of a process left."""

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}
        self._data: dict[str, Dataset] = {}
        self._network: tuple[str, Network] | None = None

    def recipe(self, study: str) -> Recipe:
        """Return the resolved recipe of a study."""
        if study not in self._recipes:
            self._recipes[study] = load(Path(study) / "resolved.yaml")
        return self._recipes[study]

    def dataset(self, arm: Arm) -> Dataset:
        """Return the data an arm is trained on."""
        assert arm.data is not None
        name = arm.data.model_dump_json()
        if name not in self._data:
            self._data.clear()  # one data set at a time: several may not fit
            self._data[name] = load_dataset(arm.data)
        return self._data[name]

    def network(
        self, arm: Arm, dataset: Dataset, *, seed: int, at: ConfigPath = MAIN, allow_code: bool = False
    ) -> Network:
        """Return the arm's network with its own initialization, surgery included.

        The model of the trial before is taken again where it is the same: its tensors keep their place, so
        a compiled graph stays valid, and its values are those of a new model, bit for bit. Models from the
        user's code, and models that surgery changes, are always new.
        """
        assert arm.model is not None
        shape = dataset.shape
        kind = f"{arm.model.model_dump_json()}|{shape}|{arm.train}"
        if self._network is not None and self._network[0] == kind and not arm.surgery:
            network = self._network[1]
            reinitialize(
                network.model,
                arm.model,
                in_channels=shape.channels,
                num_classes=shape.num_classes,
                seed=seed,
            )
            return network
        self._network = None  # before the new one is built: both may not fit
        network = build_network(arm.model, arm.surgery, shape=shape, seed=seed, allow_code=allow_code, at=at)
        if not arm.surgery and not isinstance(arm.model, PythonModel):
            self._network = (kind, network)
        return network
