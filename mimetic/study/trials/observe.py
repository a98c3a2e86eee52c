"""The `measure:` section of a recipe, as the metrics hook of the training loop."""

from collections.abc import Mapping

from torch import nn

from mimetic.config.address import ConfigPath
from mimetic.config.errors import RecipeError
from mimetic.config.suggest import listed
from mimetic.covariance.ansatz import AnsatzOptions, ansatz_sites, measure_ansatz, metrics
from mimetic.covariance.measure import Task
from mimetic.covariance.network import TrainedNetwork
from mimetic.data.config import ImageData
from mimetic.data.dataset import Dataset
from mimetic.graph.computed import tensor_in_use
from mimetic.graph.matching import mismatch
from mimetic.graph.names import canonical_modules
from mimetic.graph.site import Graph, Site
from mimetic.recipe.measurements import Ansatz
from mimetic.recipe.recipe import Arm
from mimetic.sources.trained import first_images
from mimetic.train.job import MetricsHook


def metrics_hook(
    arm: Arm, model: nn.Module, graph: Graph, dataset: Dataset, *, seed: int
) -> MetricsHook | None:
    """Return the function that measures a model during training, or None if the arm measures nothing.

    Later values are compared with the model's present ones. The first images of the data are used, neither
    augmented nor shuffled; `seed` is that of random probes.
    """
    spec = None if arm.measure is None else arm.measure.ansatz
    if spec is None or arm.train is None:
        return None
    sites, epochs = measured_sites(spec, graph), arm.train.epochs
    modules = canonical_modules(model)
    network = TrainedNetwork(
        "the network in training",
        graph,
        model,
        first_images(dataset, spec.images),
        initial={f"{s.layer}.weight": tensor_in_use(modules[s.layer], "weight") for s in sites},
    )
    task = Task(sites, seed)
    options = AnsatzOptions(spec.images, spec.probes, spec.drop_bias)

    def hook(_model: nn.Module, epoch: int) -> Mapping[str, float]:
        if epoch % spec.every != 0 and epoch != epochs:
            return {}
        return metrics(measure_ansatz(network, task, options))

    return hook


def measured_sites(spec: Ansatz, graph: Graph) -> tuple[Site, ...]:
    """Return the layers that a section measures."""
    match = spec.layers
    return ansatz_sites(graph, None if match is None else lambda site: mismatch(match, site) is None)


def check_measurements(arm: Arm, at: ConfigPath, graph: Graph) -> None:
    """Refuse measurements for which an arm or stage has no layer.

    Raises:
        RecipeError: With the position and a repair.
    """
    spec = None if arm.measure is None else arm.measure.ansatz
    if spec is not None and not isinstance(arm.data, ImageData):
        message = "the ansatz is measured on images, but the data are token sequences"
        raise RecipeError([at.issue(message, "measure", "ansatz", hint="remove it", code="MIM-Y140")])
    if spec is None or measured_sites(spec, graph):
        return
    layers = [site.layer for site in ansatz_sites(graph)]
    hint = f"it can be measured at {listed(layers, 6)}" if layers else "remove it: this network has none"
    if spec.layers is None:
        message = "no layer to measure: the ansatz needs convolutions or linear layers below the head"
        raise RecipeError([at.issue(message, "measure", "ansatz", hint=hint, code="MIM-Y141")])
    message = "`layers` matches no convolution or linear layer below the head, where the ansatz is measured"
    raise RecipeError([at.issue(message, "measure", "ansatz", "layers", hint=hint, code="MIM-Y142")])
