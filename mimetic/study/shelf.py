"""What a worker keeps between trials: the recipe, the data, and the model, begun anew in place."""

from pathlib import Path

from torch import nn

from mimetic import data, models
from mimetic.data import Dataset
from mimetic.recipe import Arm, Recipe, load
from mimetic.recipe.model import PythonModel


class Shelf:
    """What earlier trials of a process left."""

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}
        self._data: dict[str, Dataset] = {}
        self._model: tuple[str, nn.Module] | None = None

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
            self._data[name] = data.load(arm.data)
        return self._data[name]

    def model(self, arm: Arm, dataset: Dataset, *, seed: int, allow_code: bool = False) -> nn.Module:
        """Return the arm's model with its own initialization.

        The model of the trial before is taken again where it is the same: its tensors keep their place, so
        a compiled graph stays valid, and its values are those of a new model, bit for bit. Models from the
        user's code, and models that surgery changes, are always new.
        """
        assert arm.model is not None
        shapes = {"in_channels": dataset.shape.channels, "num_classes": dataset.num_classes, "seed": seed}
        if isinstance(arm.model, PythonModel) or getattr(arm, "surgery", None):
            return models.build(arm.model, **shapes, allow_code=allow_code)
        kind = arm.model.model_dump_json() + f"|{dataset.shape}|{arm.train}"
        if self._model is not None and self._model[0] == kind:
            return models.reinitialize(self._model[1], arm.model, **shapes, allow_code=allow_code)
        self._model = None  # before the new one is built: both may not fit
        built = models.build(arm.model, **shapes, allow_code=allow_code)
        self._model = (kind, built)
        return built
