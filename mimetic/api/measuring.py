"""Measure a network of one's own: `mimetic.harvest(model, loader)`, `mimetic.ansatz(model, loader)`."""

from collections.abc import Callable, Collection, Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mimetic.covariance.ansatz import AnsatzOptions, LayerAnsatz, ansatz_sites, measure_ansatz
from mimetic.covariance.config import Agop, CovarianceSource, Filters, Nfm, Patches
from mimetic.covariance.harvest import Harvest
from mimetic.covariance.measure import Task, measure
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.store import save_harvest
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites

Statistic = Literal["agop", "nfm", "filters", "patches"]
Images = Tensor | Iterable[Any] | None

_SECTIONS: dict[str, type[CovarianceSource]] = {
    "agop": Agop,
    "nfm": Nfm,
    "filters": Filters,
    "patches": Patches,
}
_ALREADY = {"type", "from", "from_", "layers", "between", "align_corners", "keep", "kind", "channels"}
HERE = {"stage": "here"}  # a section says where its network is; here the network itself is given


def harvest(
    model: nn.Module,
    images: Images = None,
    statistic: Statistic = "agop",
    *,
    path: str | PathLike[str] | None = None,
    origin: str | None = None,
    initial: nn.Module | Mapping[str, Tensor] | None = None,
    kinds: Collection[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Harvest:
    """Measure the covariances of a trained network's layers, to start other networks from.

    Args:
        model: Any trained module, on any real device; unchanged.
        images: What the network saw in training, normalized: a tensor (N, C, H, W), or a loader of such
            batches, labels beside them or not. Needed by `agop` and `patches`.
        statistic: `agop` (average gradient outer product over patches), `nfm` (WᵀW), `filters`
            (covariance of the filters over their pixels), or `patches` (of the images, at the first layer).
        path: A file to keep the covariances in (safetensors); recipes take it as `{type: file, path: …}`.
        origin: Name of the network for messages and plans; its class unless given.
        initial: The network at its initialization, or its parameters then by name, for `of="change"`.
        kinds: Kinds of layers: `conv`, `depthwise_conv`, `pointwise_conv`, `linear`; all unless given.
        seed: Seed of random probes.
        progress: Called with what is done and the total.
        **options: Those of the recipe's section: `images=256`, `outputs`, `probes`, `power`, `drop_bias`,
            `of`, `normalize`, `centered`, `shrink`, `rank`, `whiten`, `epsilon`. The number of images is
            given as `count`, for `images` are the images themselves.

    Returns:
        The harvest, layer by layer in execution order.

    Raises:
        UserError: If an option is unknown, images are missing or do not fit, or weights are not finite;
            nothing is written then.
    """
    spec = section(statistic, options)
    name = type(model).__name__ if origin is None else origin
    images_NCHW = gathered(images, getattr(spec, "images", 0))
    network = TrainedNetwork(name, find_sites(model, _example(images_NCHW)), model, images_NCHW, initial)
    found = measure(spec, network, kinds=kinds, seed=seed, progress=progress)
    if path is not None:
        save_harvest(Path(fspath(path)), found, about={"options": dict(options)})
    return found


def ansatz(
    model: nn.Module,
    images: Images,
    *,
    initial: nn.Module | Mapping[str, Tensor] | None = None,
    kinds: Collection[str] | None = None,
    count: int = 256,
    probes: int | None = None,
    drop_bias: bool = False,
    origin: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LayerAnsatz, ...]:
    """Measure how far NFM ∝ AGOP holds at each layer of a network (arXiv 2309.00570).

    A linear head is left out: there ρ = 1 whatever the network learned.

    Args:
        model: Any module, on any real device; unchanged.
        images: As in `harvest`.
        initial: The network at its initialization, or its parameters then by name, for the correlations
            with the start and of the change.
        kinds: Kinds of layers, as in `harvest`; all unless given.
        count: How many images; the first ones.
        probes: Random combinations of outputs per image; unless given, every one of up to 100 outputs, and
            4 combinations of more.
        drop_bias: Leave out each layer's own bias, as the paper's code does.
        origin: Name of the network for messages; its class unless given.
        seed: Seed of random probes.
        progress: Called with the number of images done and the total.

    Returns:
        The layers in execution order, each with its numbers (`agreement`), its NFM and its AGOP.

    Raises:
        UserError: If there is no such layer, images are missing or do not fit, or weights are not finite.
    """
    name = type(model).__name__ if origin is None else origin
    images_NCHW = gathered(images, count)
    graph = find_sites(model, _example(images_NCHW))
    sites = ansatz_sites(graph, None if kinds is None else lambda site: site.kind in kinds)
    if not sites:
        kinds_here = sorted({site.kind for site in ansatz_sites(graph)})
        message = f"{name}: the ansatz is measured at convolutions and linear layers below the head, and "
        message += f"none is of the kind {_listing(kinds)} " if kinds is not None else "there is none "
        raise UserError(f"{message}(kinds here: {_listing(kinds_here) if kinds_here else 'none'})")
    network = TrainedNetwork(name, graph, model, images_NCHW, initial)
    return measure_ansatz(network, Task(sites, seed, progress), AnsatzOptions(count, probes, drop_bias))


def section(statistic: str, options: Mapping[str, Any]) -> CovarianceSource:
    """Return the section of a recipe that a statistic and its options stand for.

    Raises:
        UserError: If there is no such statistic, or an option is unknown or has an impossible value.
    """
    if statistic not in _SECTIONS:
        message = f"harvest: there is no statistic `{statistic}`; choose one of {_listing(_SECTIONS)}"
        raise UserError(message)
    kind = _SECTIONS[statistic]
    given = {("images" if name == "count" else name): value for name, value in options.items()}
    known = [name for name in kind.model_fields if name not in _ALREADY]
    for name in given:
        if name not in known:
            shown = _listing(["count" if option == "images" else option for option in known])
            message = f"harvest: `{statistic}` has no option `{name}`; it takes {shown}"
            raise UserError(message)
    if "from_" in kind.model_fields:
        given["from"] = HERE
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        said = "; ".join(f"`{detail['loc'][0]}`: {detail['msg']}" for detail in error.errors())
        raise UserError(f"harvest: the options of `{statistic}` are not right: {said}") from error


def gathered(images: Images, count: int) -> Tensor | None:
    """Return the first images of a tensor or a loader as one tensor; None where there are none.

    Raises:
        UserError: If a loader's batches hold no tensors.
    """
    if images is None or isinstance(images, Tensor):
        return images
    if count == 0:
        return None
    parts: list[Tensor] = []
    for batch in images:
        first = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(first, Tensor):
            message = f"the loader yields {type(first).__name__}; its batches must be tensors "
            raise UserError(message + "(N, C, H, W), alone or first in a tuple")
        parts.append(first)
        if sum(map(len, parts)) >= count:
            break
    return torch.cat(parts)[:count] if parts else None


def _example(images_NCHW: Tensor | None) -> Tensor | None:
    return None if images_NCHW is None or len(images_NCHW) == 0 else images_NCHW[:2]


def _listing(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
