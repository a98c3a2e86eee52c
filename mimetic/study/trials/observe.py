"""What a recipe's `measure:` asks for, as the function the training loop calls once per epoch."""

from collections.abc import Mapping

from torch import nn

from mimetic.config.address import ConfigPath
from mimetic.config.errors import RecipeError
from mimetic.covariance.ansatz import AnsatzOptions, ansatz_sites, measure_ansatz, metrics
from mimetic.covariance.measure import Task
from mimetic.covariance.network import TrainedNetwork
from mimetic.data.config import ImageData
from mimetic.data.dataset import Dataset
from mimetic.graph.matching import mismatch
from mimetic.graph.names import canonical_parameters
from mimetic.graph.site import Graph, Site
from mimetic.recipe.measurements import Ansatz
from mimetic.recipe.recipe import Arm
from mimetic.study.trials.gathering import first_images
from mimetic.train.job import MetricsHook


def metrics_hook(
    arm: Arm, model: nn.Module, graph: Graph, dataset: Dataset, *, seed: int
) -> MetricsHook | None:
    """Return what measures a model while it is trained; None where the arm asks for nothing.

    Args:
        arm: The arm.
        model: Its model as training begins: what changes later is compared with these weights.
        graph: Its sites.
        dataset: Its images. The first ones are shown, neither augmented nor shuffled.
        seed: Seed of random probes.
    """
    asked = None if arm.measure is None else arm.measure.ansatz
    if asked is None or arm.train is None:
        return None
    sites, epochs = chosen_sites(asked, graph), arm.train.epochs
    began = canonical_parameters(model)
    names = [f"{site.layer}.weight" for site in sites]
    network = TrainedNetwork(
        "the network in training",
        graph,
        model,
        first_images(dataset, asked.images),
        initial={name: began[name].detach().clone() for name in names},
    )
    task = Task(sites, seed)
    options = AnsatzOptions(asked.images, asked.probes, asked.drop_bias)

    def observe(_model: nn.Module, epoch: int) -> Mapping[str, float]:
        if epoch % asked.every != 0 and epoch != epochs:
            return {}
        return metrics(measure_ansatz(network, task, options))

    return observe


def chosen_sites(asked: Ansatz, graph: Graph) -> tuple[Site, ...]:
    """Return the layers a section measures."""
    match = asked.layers
    return ansatz_sites(graph, None if match is None else lambda site: mismatch(match, site) is None)


def check_measurements(arm: Arm, at: ConfigPath, graph: Graph) -> None:
    """Refuse measurements that no layer of an arm or stage could give.

    Raises:
        RecipeError: If there is none; says where.
    """
    asked = None if arm.measure is None else arm.measure.ansatz
    if asked is not None and not isinstance(arm.data, ImageData):
        message = "the ansatz is measured on images, and the data are sequences of tokens"
        raise RecipeError([at.issue(message, "measure", "ansatz", hint="remove it")])
    if asked is None or chosen_sites(asked, graph):
        return
    keys = ("measure", "ansatz", *(() if asked.layers is None else ("layers",)))
    known = [site.layer for site in ansatz_sites(graph)]
    hint = f"it can be measured at {_shown(known)}" if known else "remove it: this network has no such layer"
    message = "the ansatz is measured at convolutions and linear layers below the head"
    if asked.layers is not None:
        message += ", and `layers` matches none of them"
    raise RecipeError([at.issue(message, *keys, hint=hint)])


def _shown(layers: list[str], most: int = 6) -> str:
    more = f", … ({len(layers)} layers)" if len(layers) > most else ""
    return ", ".join(f"`{layer}`" for layer in layers[:most]) + more
