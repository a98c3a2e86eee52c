"""The calls on your own trained networks: `mimetic.resample` and `mimetic.similarity`."""

import copy
from typing import Any

import torch
from torch import nn

from mimetic.api.measuring import Images, collect_images, validated
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.similarity import Similarity, similarities
from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules
from mimetic.graph.sites import find_sites
from mimetic.initializers.config import Rainbow
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule
from mimetic.streams import as_seed


def resample(
    model: nn.Module,
    trained: nn.Module,
    images: Images,
    *,
    seed: int = 0,
    layers: str = ".*",
    count: int = 1000,
    **options: Any,
) -> Plan:
    """Resample a trained network into another of the same layers, in place, and return the plan.

    Filters are drawn from the covariances of the trained network's and aligned to the layers drawn before
    (arXiv 2305.18512); see `mimetic.initializers.resample`.

    Args:
        model: The network to fill, of any widths, on any real device.
        trained: The trained network; unchanged.
        images: Training images as the trained network saw them, normalized: a tensor (N, C, H, W), or a
            loader of such batches, labels beside them or not.
        seed: Seed of the run.
        layers: Regular expression for the layers to fill.
        count: How many images are used.
        **options: `align`, `rows`, `shrink` and `rank`, as in a recipe.

    Raises:
        RecipeError: If a layer does not fit; nothing is written then.
        UserError: If an option is unknown, or there are no images.
    """
    images_NCHW = collect_images(images, count)
    if images_NCHW is None or len(images_NCHW) == 0:
        raise UserError("resample: networks are aligned on images, and there are none", code="MIM-A010")
    spec = validated(Rainbow, {**options, "images": count}, "resample: the options")
    rule = Rule.model_validate({"id": "resample", "match": {"layer": layers, "param": ".*"}, "init": spec})
    first_NCHW = images_NCHW[:count].detach().to("cpu", torch.float32)
    plain = _plain(trained)
    network = TrainedNetwork(type(trained).__name__, find_sites(plain, first_NCHW[:2]), plain, first_NCHW)
    made = resolve(
        Arm(init=(rule,)),
        find_sites(model, first_NCHW[:2]),
        seed=as_seed(seed),
        harvests={harvest_key(spec): network},
    )
    made.apply(model)
    return made


def similarity(
    one: nn.Module, other: nn.Module, images: Images = None, *, count: int = 1000, seed: int = 0
) -> tuple[Similarity, ...]:
    """Compare two networks layer by layer: features by Procrustes, filters' covariances by Bures.

    Args:
        one: The network in whose channels the other is seen.
        other: A network with layers of the same names; widths may differ.
        images: As both see them, normalized; without, only what needs no rotation is compared.
        count: How many images are used.
        seed: Seed of the random rotations that the similarity is compared with.

    Raises:
        UserError: If they share no layer, or images do not fit.
    """
    images_NCHW = collect_images(images, count)
    if images_NCHW is not None:
        images_NCHW = images_NCHW[:count].detach().to("cpu", torch.float32)
    return similarities(_plain(one), _plain(other), images_NCHW, seed=as_seed(seed))


def _plain(model: nn.Module) -> nn.Module:
    """Return a copy of a network without its wrappers, float32 on the CPU."""
    return copy.deepcopy(canonical_modules(model)[""]).to("cpu").float()
