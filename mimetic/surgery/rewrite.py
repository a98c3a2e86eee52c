"""Rewrite a network: match layers, construct their replacements, insert and initialize them.

A rewrite is one section in `mimetic.surgery.config` and one function (protocol `ReplaceLayers`). All rewrites
see the network as it was built, and the first that matches a layer replaces it; a replacement is not
rewritten again. All errors are found before anything is changed, and reported together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from mimetic.ambient import fixed_settings
from mimetic.config.address import MAIN, ConfigPath
from mimetic.config.errors import Issue, RecipeError
from mimetic.config.registry import implementation
from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.matching import mismatch
from mimetic.graph.names import canonical_modules, walk
from mimetic.graph.own import own_children
from mimetic.graph.site import shape_text
from mimetic.graph.sites import ExampleInput, find_sites
from mimetic.models.reset import reset_layers
from mimetic.surgery.config import Rewrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A new layer that replaces an old one.

    Attributes:
        layer: Canonical name of the old layer.
        module: The new layer, on the old layer's device.
        becomes: Description of the new layer, for the plan.
        frozen: Names of its frozen parameters, below the layer.
        fresh: Whether its layers are still to be initialized by their `reset_parameters`.
    """

    layer: str
    module: nn.Module
    becomes: str
    frozen: tuple[str, ...] = ()
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A layer that surgery replaced before the plan was made.

    Attributes:
        layer: Canonical name of the layer.
        rewrite: Id of the rewrite.
        type: Registered name of the rewrite.
        arguments: Arguments of the rewrite, plain values.
        was: Description of the old layer.
        becomes: Description of the new layer.
        frozen: Names of the parameters that the rewrite freezes.
        where: Position of the rewrite, e.g. `recipe.yaml:41`.
    """

    layer: str
    rewrite: str
    type: str
    arguments: Mapping[str, object]
    was: str
    becomes: str
    frozen: tuple[str, ...] = ()
    where: str | None = None

    def identity(self) -> dict[str, object]:
        """Return what determines the network's function; the plan's hash includes only this."""
        return {"layer": self.layer, "type": self.type, "arguments": dict(self.arguments)}


class ReplaceLayers(Protocol):
    """Function behind a rewrite: `def fold(spec: Fold, layers, modules) -> list[Replacement]`.

    `layers` are the canonical names of the matched layers in order of execution, `modules` all modules of the
    network by canonical name. The function changes nothing. Raises UserError, naming the layer, if one cannot
    be replaced.
    """

    def __call__(
        self, spec: Rewrite, layers: Sequence[str], modules: Mapping[str, nn.Module], /
    ) -> list[Replacement]:
        """Return the replacements."""
        ...


@fixed_settings()
def rewrite_network(
    model: nn.Module,
    surgery: Sequence[Rewrite],
    *,
    seed: int,
    example: ExampleInput | None = None,
    at: ConfigPath = MAIN,
) -> tuple[Rewritten, ...]:
    """Rewrite a network in place.

    New layers are initialized under the key (seed, "default", name), like those of built-in models,
    independently of other layers and rewrites. On the meta device nothing is initialized.

    Args:
        model: The network, on any device.
        surgery: The rewrites.
        seed: Seed of the run.
        example: An input (N, …) for tracing the order of execution; guessed if None.
        at: Path of the arm in its recipe, for messages.

    Returns:
        The replaced layers, in order of execution.

    Raises:
        RecipeError: With all errors of the rewrites; the network is unchanged then.
    """
    if not surgery:
        return ()
    # 1. The first rewrite that matches a layer replaces it.
    modules = canonical_modules(model)
    matches, errors = _match(model, surgery, example, at)
    # 2. Everything is constructed before anything is changed, so all errors are reported at once.
    made: list[tuple[Rewrite, Replacement]] = []
    for rewrite in surgery:
        if rewrite.id in errors or not matches[rewrite.id]:
            continue
        replace: ReplaceLayers = implementation(rewrite)
        try:
            made += [(rewrite, new) for new in replace(rewrite, matches[rewrite.id], modules)]
        except UserError as error:
            errors[rewrite.id] = at.issue(str(error), "surgery", rewrite.id, code=error.code)
    for rewrite, new in made:
        if new.layer == "":
            text = "it matches the whole network; match a layer inside it"
            errors[rewrite.id] = at.issue(text, "surgery", rewrite.id, code="MIM-U001")
    if errors:
        raise RecipeError(errors.values())
    # 3. Nothing can fail any more.
    for _, new in made:
        _replace_module(model, modules[new.layer], new.module)
    _initialize([new for _, new in made], seed)
    return tuple(_rewritten(rewrite, new, modules[new.layer], at) for rewrite, new in made)


def _match(
    model: nn.Module,
    surgery: Sequence[Rewrite],
    example: ExampleInput | None,
    at: ConfigPath,
) -> tuple[dict[str, list[str]], dict[str, Issue]]:
    """Return the layers that each rewrite replaces, and the errors of those that match too few or many."""
    first: dict[str, list[str]] = {rewrite.id: [] for rewrite in surgery}
    matched: set[str] = set()
    sites = find_sites(model, example).sites
    for site in sites:
        matching = [rewrite.id for rewrite in surgery if mismatch(rewrite.match, site) is None]
        matched.update(matching)
        if matching:
            first[matching[0]].append(site.layer)
    errors: dict[str, Issue] = {}
    for rewrite in surgery:
        layers, keys, start = first[rewrite.id], ("surgery", rewrite.id), f"rewrite `{rewrite.id}`"
        if rewrite.id not in matched:
            hint = f"the model has layers of kind {listed(sorted({site.kind for site in sites}))}"
            text, hint = f"{start} matches nothing in this model", f"{hint}; see `mimetic plan --all`"
            errors[rewrite.id] = at.issue(text, *keys, hint=hint, code="MIM-U002")
        elif not layers:
            text = f"{start} never applies: earlier rewrites replace every layer it matches"
            hint = "move it further up or narrow the earlier one: the first match wins"
            errors[rewrite.id] = at.issue(text, *keys, hint=hint, code="MIM-U003")
        elif rewrite.expect is not None and rewrite.expect != len(layers):
            text = f"{start} expects {rewrite.expect} layers and replaces {len(layers)}: {listed(layers, 8)}"
            errors[rewrite.id] = at.issue(text, *keys, code="MIM-U004")
    return first, errors


def _initialize(made: Sequence[Replacement], seed: int) -> None:
    """Initialize new layers, each under its name in the network."""
    fresh = [new for new in made if new.fresh]
    layers = [
        (f"{new.layer}.{name}" if name else new.layer, layer)
        for new in fresh
        for name, layer in new.module.named_modules()
    ]
    if not any(p.is_meta for new in fresh for p in new.module.parameters()):
        reset_layers(layers, seed)


def _rewritten(spec: Rewrite, new: Replacement, old: nn.Module, at: ConfigPath) -> Rewritten:
    mark = at.mark("surgery", spec.id)
    return Rewritten(
        layer=new.layer,
        rewrite=spec.id,
        type=spec.type_name(),
        arguments=spec.model_dump(exclude={"id", "match", "expect", "type"}),
        was=_describe(old),
        becomes=new.becomes,
        frozen=tuple(f"{new.layer}.{name}" for name in new.frozen),
        where=None if mark is None else f"{mark.file}:{mark.line}",
    )


def _describe(layer: nn.Module) -> str:
    """Describe a layer: `conv 3×3, 16→32`."""
    kind, geometry = kind_and_geometry(layer)
    if geometry is None:
        return type(layer).__name__
    return f"{kind} {shape_text(geometry.kernel_size)}, {geometry.in_channels}→{geometry.out_channels}"


def _replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a layer in every parent that contains it, under the same key."""
    parents = [
        (parent, key)
        for _, _, parent in walk(model)
        for key, child in own_children(parent).items()  # named_children would drop shared modules
        if child is old
    ]
    for parent, key in parents:
        own_children(parent)[key] = new  # preserves the order of the children


def spatial_conv(layer: str, modules: Mapping[str, nn.Module], *, by: str, zeros: bool = False) -> nn.Conv2d:
    """Return a layer that must be an ordinary k×k convolution with one group.

    Args:
        layer: Canonical name of the layer.
        modules: All modules of the network by canonical name.
        by: Type of the rewrite, for messages.
        zeros: Whether it must pad with zeros.

    Raises:
        UserError: If it is another kind of layer.
    """
    conv = modules[layer]
    if type(conv) is not nn.Conv2d:  # a subclass may compute something else
        raise UserError(
            f"`{layer}` is a {type(conv).__name__}, and {by} replaces torch's own Conv2d only; "
            "narrow `match`",
            code="MIM-U006",
        )
    if conv.groups != 1:
        raise UserError(
            f"`{layer}` is a convolution with {conv.groups} groups, and {by} needs one group; "
            "narrow `match`, e.g. `groups: 1` or `kind: conv`",
            code="MIM-U007",
        )
    if max(conv.kernel_size) == 1:
        raise UserError(
            f"`{layer}` is a 1×1 convolution and has no spatial filters; narrow `match`, e.g. `kind: conv`",
            code="MIM-U008",
        )
    if zeros and conv.padding_mode != "zeros":
        raise UserError(
            f"`{layer}` has padding mode `{conv.padding_mode}`, and {by} supports zeros only",
            code="MIM-U009",
        )
    return conv


def empty_like(make: Callable[[], nn.Module], like: nn.Module) -> nn.Module:
    """Construct a module without values, with a layer's device, dtype and training mode."""
    weight = next(like.parameters())
    with torch.device("meta"):
        module = make()
    module = module.to(weight.dtype).train(like.training)
    return module if weight.is_meta else module.to_empty(device=weight.device)
