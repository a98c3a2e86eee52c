"""Measure a network in memory: `mimetic.harvest(model, loader)`, `mimetic.ansatz(model, loader)`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mimetic.config.patterns import compiled
from mimetic.config.registry import Component, registered
from mimetic.config.suggest import listed
from mimetic.config.text.tree import plain, wrapped
from mimetic.covariance.ansatz import AnsatzOptions, LayerAnsatz, ansatz_sites, measure_ansatz
from mimetic.covariance.config import CovarianceSource, Transferred
from mimetic.covariance.harvest import Harvest
from mimetic.covariance.measure import Task, measure
from mimetic.covariance.network import Initial, Progress
from mimetic.covariance.store import save_harvest
from mimetic.covariance.trained_ref import TensorKind
from mimetic.errors import UserError
from mimetic.initializers.attention_statistics import AttentionStatistics, measure_attention, save_attention
from mimetic.sources.tensors import TensorSource
from mimetic.sources.trained import TrainedSource, images_needed
from mimetic.streams import as_seed

Kind = TypeVar("Kind", bound=Component)

Images = Tensor | Iterable[Any] | None

HERE = {"stage": "here"}
"""Takes the place of the `from:` of a section where the network itself is given."""

_NOT_MEASURED = {"type", "from_", *Transferred.model_fields} - {"shrink", "rank"}
"""Fields of sections that define where a covariance goes, not how it is measured."""

_OF_NETWORKS = ("origin", "initial", "kinds", "seed", "progress")


class MeasureOptions(TypedDict, total=False):
    """How a network is measured.

    Attributes:
        origin: Name of the network for messages and plans; its class unless given.
        initial: The network at its initialization, or its parameters then by name.
        kinds: Kinds of layers: `conv`, `depthwise_conv`, `pointwise_conv`, `linear`; all unless given.
        seed: Seed of random probes.
        progress: Called with what is done and the total.
        layers: Of a file of weights: regular expressions for whole names of layers, those of the first come
            first.
        tensor_kind: Of a file of weights: the kind of these layers, where shapes do not decide it.
    """

    origin: str | None
    initial: Initial | None
    kinds: Collection[str] | None
    seed: int
    progress: Progress | None
    layers: Sequence[str] | None
    tensor_kind: TensorKind | None


def harvest(
    model: nn.Module | str | PathLike[str],
    images: Images = None,
    statistic: str = "agop",
    *,
    path: str | PathLike[str] | None = None,
    **options: Any,
) -> Harvest:
    """Measure the covariances of a trained network's layers, to start other networks from.

    Args:
        model: Any trained module, on any real device; unchanged. Or a file of weights, without its network:
            safetensors, PyTorch state dict, npz or ONNX; of it, `filters` and `nfm` can be measured.
        images: What the network saw in training, normalized: a tensor (N, C, H, W), or a loader of such
            batches, with or without labels. Needed by `agop` and `patches`.
        statistic: `agop` (average gradient outer product over patches), `nfm` (WᵀW), `filters`
            (covariance of the filters over their pixels), `patches` (of the images, at the first layer), or
            the type of a plug-in's statistic.
        path: A file to save the covariances in (safetensors); recipes take it as `{type: file, path: …}`.
        **options: `origin`, `initial` (for `of="change"`), `kinds`, `seed`, `progress` and, of a file,
            `layers` and `tensor_kind` of `MeasureOptions`, and the fields of the recipe's section: `outputs`,
            `probes`, `power`, `drop_bias`, `of`, `normalize`, `centered`, `shrink`, `rank`, `whiten`,
            `epsilon`. The number of images is given as `count`.

    Returns:
        The harvest, layer by layer in execution order.

    Raises:
        UserError: If an option is unknown, images are missing or do not fit, or weights are not finite;
            nothing is written then.
    """
    of_file = () if isinstance(model, nn.Module) else ("layers", "tensor_kind")
    names = [n for n in (*_OF_NETWORKS, *of_file) if n in options]
    how = cast("MeasureOptions", {name: options.pop(name) for name in names})
    spec = section(statistic, options)
    if isinstance(model, nn.Module):
        network = _source(model, how).network(
            collect_images(images, images_needed(spec) or 0), initial=how.get("initial")
        )
        found = measure(
            spec,
            network,
            kinds=how.get("kinds"),
            seed=as_seed(how.get("seed", 0)),
            progress=how.get("progress"),
        )
    else:
        found = _stored(model, how).measure(spec, kinds=how.get("kinds"))
    if path is not None:
        save_harvest(Path(fspath(path)), found, about={"options": dict(options), "version": spec.version})
    return found


def harvest_attention(
    model: nn.Module, *, path: str | PathLike[str] | None = None, origin: str | None = None
) -> AttentionStatistics:
    """Measure the query–key and value–projection products of a trained network's attention.

    Args:
        model: Any trained module, on any real device; unchanged.
        path: A file to save them in; recipes take it as `init: {type: mimetic_attention, from: {file: …}}`.
        origin: Name of the network for messages and plans; its class unless given.

    Returns:
        The numbers of `mimetic_attention` by layer, with the moments they are from.

    Raises:
        UserError: If it has no attention, or weights are not finite; nothing is written then.
    """
    found = measure_attention(_source(model, {"origin": origin}).network())
    if path is not None:
        save_attention(Path(fspath(path)), found)
    return found


def ansatz(
    model: nn.Module,
    images: Images,
    *,
    count: int = 256,
    probes: int | Literal["exact"] | None = None,
    drop_bias: bool = False,
    **how: Unpack[MeasureOptions],
) -> tuple[LayerAnsatz, ...]:
    """Measure how far NFM ∝ AGOP holds at each layer of a network (arXiv 2309.00570).

    A linear head is left out: there ρ = 1 whatever the network learned.

    Args:
        model: Any module, on any real device; unchanged.
        images: As in `harvest`.
        count: How many images; the first ones.
        probes: Random combinations of outputs per image, or `exact`: every one. Unless given, every one
            of up to 100 outputs, and 4 combinations of more.
        drop_bias: Leave out each layer's own bias, as the paper's code does.
        **how: `origin`, `kinds`, `seed`, `progress`, and `initial`, for the correlations with the start and
            of the change; see `MeasureOptions`.

    Returns:
        The layers in execution order, each with its numbers (`agreement`), its NFM and its AGOP.

    Raises:
        UserError: If there is no such layer, images are missing or do not fit, or weights are not finite.
    """
    network = _source(model, how).network(collect_images(images, count), initial=how.get("initial"))
    kinds = how.get("kinds")
    sites = ansatz_sites(network.graph, None if kinds is None else lambda site: site.kind in kinds)
    if not sites:
        present = ", ".join(sorted({f"`{site.kind}`" for site in ansatz_sites(network.graph)}))
        wanted = "" if kinds is None else f" of kind {', '.join(f'`{kind}`' for kind in kinds)}"
        raise UserError(
            f"{network.origin}: the ansatz is measured at convolutions and linear layers below the head, and "
            f"there is none{wanted} (kinds here: {present or 'none'})",
            code="MIM-A001",
        )
    task = Task(sites, as_seed(how.get("seed", 0)), how.get("progress"))
    return measure_ansatz(network, task, AnsatzOptions(count, probes, drop_bias))


def _source(model: nn.Module, how: MeasureOptions) -> TrainedSource:
    origin = how.get("origin")
    return TrainedSource(name=type(model).__name__ if origin is None else origin, module=model)


def _stored(file: str | PathLike[str], how: MeasureOptions) -> TensorSource:
    """Return the weights in a file as a source."""
    path, layers, origin = Path(fspath(file)), how.get("layers"), how.get("origin")
    for pattern in () if layers is None else layers:
        try:
            compiled(pattern)
        except ValueError as error:
            raise UserError(
                f"harvest: `{pattern}` is not a regular expression: {error}; correct `layers`",
                code="MIM-A006",
            ) from error
    name = path.name if origin is None else origin
    return TensorSource(name=name, file=path, layers=layers, kind=how.get("tensor_kind"))


def statistics() -> dict[str, type[CovarianceSource]]:
    """Return the sections of the covariances that can be measured on a network, by type."""
    found = registered("covariance").items()
    return {
        name: section
        for name, section in found
        if issubclass(section, CovarianceSource) and "measure" in section.functions
    }


def section(statistic: str, options: Mapping[str, object]) -> CovarianceSource:
    """Return the section of a recipe that a statistic and its options mean.

    Raises:
        UserError: If there is no such statistic, or an option is unknown or has an impossible value.
    """
    types = statistics()
    if statistic not in types:
        names = listed(types)
        raise UserError(
            f"harvest: there is no statistic `{statistic}`; choose one of {names}", code="MIM-A002"
        )
    kind = types[statistic]
    given = {("images" if name == "count" else name): value for name, value in options.items()}
    known = [name for name in kind.model_fields if name not in _NOT_MEASURED]
    for name in given:
        if name not in known:
            names = ", ".join(f"`{'count' if option == 'images' else option}`" for option in known)
            raise UserError(
                f"harvest: `{statistic}` has no option `{name}`; it takes {names}", code="MIM-A003"
            )
    return validated(kind, given, f"harvest: the options of `{statistic}`")


def validated(kind: type[Kind], options: Mapping[str, object], what: str) -> Kind:
    """Return a section with options and, where it has a `from`, the network given in memory.

    Raises:
        UserError: If a value is impossible.
    """
    here = {"from": HERE} if "from_" in kind.model_fields else {}
    try:
        return kind.model_validate({**here, **plain(wrapped(options))})
    except ValidationError as error:
        details = "; ".join(f"`{detail['loc'][0]}`: {detail['msg']}" for detail in error.errors())
        raise UserError(f"{what} are invalid: {details}", code="MIM-A004") from error


def collect_images(images: Images, count: int) -> Tensor | None:
    """Return the first images of a tensor or a loader as one tensor; None where there are none.

    Raises:
        UserError: If a loader's batches are no tensors.
    """
    if images is None or isinstance(images, Tensor):
        return images
    if count == 0:
        return None
    parts: list[Tensor] = []
    for batch in images:
        first = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(first, Tensor):
            raise UserError(
                f"the loader yields {type(first).__name__}; its batches must be tensors (N, C, H, W), alone "
                "or first in a tuple",
                code="MIM-A005",
            )
        parts.append(first)
        if sum(map(len, parts)) >= count:
            break
    return torch.cat(parts)[:count] if parts else None
