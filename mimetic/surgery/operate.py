"""Carry out a recipe's rewrites on a network: match, replace, give the new layers their first values.

All rewrites see the network as it was built, and the first that matches a layer replaces it: what a
rewrite made is not rewritten again. Mistakes are found before anything is changed, and told together.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mimetic.config.address import MAIN, ConfigPath
from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.matching import mismatch
from mimetic.graph.names import canonical_modules
from mimetic.graph.sites import find_sites
from mimetic.models.reset import reset_layers
from mimetic.surgery.config import Rewrite
from mimetic.surgery.put import put
from mimetic.surgery.replacement import Replacement, Rewritten, replacements

_SHOWN = 8


def operate(
    model: nn.Module,
    surgery: Sequence[Rewrite],
    *,
    seed: int,
    example: Tensor | tuple[Any, ...] | None = None,
    at: ConfigPath = MAIN,
) -> tuple[Rewritten, ...]:
    """Rewrite a network in place.

    New layers draw under the key (seed, "default", their name), as those of our own models do, so other
    layers' values and other rewrites change nothing. On the meta device nothing is drawn.

    Args:
        model: The network, on any device.
        surgery: The rewrites.
        seed: Seed of the run.
        example: An input (N, …) for tracing the order of execution; guessed unless given.
        at: Where the arm stands in its recipe, for messages.

    Returns:
        What was replaced, in the order of execution.

    Raises:
        RecipeError: With every mistake of the rewrites at once; nothing is changed then.
    """
    if not surgery:
        return ()
    modules = canonical_modules(model)
    claims, issues = _claims(model, surgery, example)
    made: list[tuple[int, Replacement]] = []
    for index, layers in enumerate(claims):
        if index in issues or not layers:
            continue
        try:
            made += [(index, one) for one in replacements(surgery[index], layers, modules)]
        except UserError as error:
            issues[index] = (str(error), None)
    if "" in (one.layer for _, one in made):
        issues[made[0][0]] = ("it matches the whole network; surgery needs a layer inside one", None)
    if issues:
        raise RecipeError(
            at.issue(message, "surgery", surgery[index].id, hint=hint)
            for index, (message, hint) in issues.items()
        )
    for _, one in made:
        put(model, modules[one.layer], one.module, name=one.layer)
    _begin([one for _, one in made], seed)
    return tuple(_rewritten(surgery[index], one, modules[one.layer], at) for index, one in made)


def _claims(
    model: nn.Module, surgery: Sequence[Rewrite], example: Tensor | tuple[Any, ...] | None
) -> tuple[list[list[str]], dict[int, tuple[str, str | None]]]:
    """Return the layers each rewrite replaces, and what is wrong with those that match too few or many."""
    claims: list[list[str]] = [[] for _ in surgery]
    matched: list[int] = [0] * len(surgery)
    sites = find_sites(model, example).sites
    for site in sites:
        fits = [i for i, rewrite in enumerate(surgery) if mismatch(rewrite.match, site) is None]
        for index in fits:
            matched[index] += 1
        if fits:
            claims[fits[0]].append(site.layer)
    issues: dict[int, tuple[str, str | None]] = {}
    for index, rewrite in enumerate(surgery):
        found = len(claims[index])
        if matched[index] == 0:
            kinds = ", ".join(f"`{kind}`" for kind in sorted({site.kind for site in sites}))
            message = f"rewrite `{rewrite.id}` matches nothing in this model"
            issues[index] = (message, f"the model has layers of kind {kinds}; see `mimetic plan --all`")
        elif found == 0:
            message = f"rewrite `{rewrite.id}` never applies: everything it matches is replaced before it"
            issues[index] = (message, "move it further up or narrow the earlier one: the first match wins")
        elif rewrite.expect is not None and rewrite.expect != found:
            message = f"rewrite `{rewrite.id}` expects {rewrite.expect} layers and replaces {found}"
            issues[index] = (f"{message}: {_listing(claims[index])}", None)
    return claims, issues


def _begin(made: Sequence[Replacement], seed: int) -> None:
    """Give new layers their first values, each under its name in the network."""
    fresh = [one for one in made if one.fresh]
    below = [
        (f"{one.layer}.{name}" if name else one.layer, layer)
        for one in fresh
        for name, layer in one.module.named_modules()
    ]
    if not any(p.is_meta for one in fresh for p in one.module.parameters()):
        reset_layers(below, seed)


def _rewritten(spec: Rewrite, one: Replacement, old: nn.Module, at: ConfigPath) -> Rewritten:
    mark = at.mark("surgery", spec.id)
    return Rewritten(
        layer=one.layer,
        rewrite=spec.id,
        type=spec.type_name(),
        arguments=spec.model_dump(exclude={"id", "match", "expect", "type"}),
        was=_words(old),
        becomes=one.becomes,
        frozen=tuple(f"{one.layer}.{name}" for name in one.frozen),
        where=None if mark is None else f"{mark.file}:{mark.line}",
    )


def _words(layer: nn.Module) -> str:
    """Say what a layer is: `conv 3×3, 16→32`."""
    kind, geometry = kind_and_geometry(layer)
    if geometry is None:
        return type(layer).__name__
    sides = "×".join(str(side) for side in geometry.kernel_size)
    return f"{kind} {sides}, {geometry.in_channels}→{geometry.out_channels}"


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} … ({len(names)} in all)"
