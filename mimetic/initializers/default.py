"""`default`: the layer's own law, as its `reset_parameters` has it.

Such code knows no generators, so it runs on a CPU copy of the layer, under the global stream seeded by
the parameter's key and restored afterwards. Each parameter is taken from a reset of its own, so its
values depend on its own name alone and not on which others the rule claims.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mimetic.covariance.linalg import one_thread
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.draw import ResolvedInit, Streams
from mimetic.streams import keyed_global_rng

SLOT = "default"
_RESETS = ("reset_parameters", "_reset_parameters")


def default(site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of parameters by the layer's own default law.

    Raises:
        UserError: When sampled, if the layer has no `reset_parameters` or it leaves a parameter unset.
    """
    known = {parameter.local for parameter in site.parameters}
    claimed = tuple(name for name in names if name in known)

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        return {name: _one(site, layer, name, streams(name, SLOT)) for name in claimed}

    return ResolvedInit(name="default", arguments={}, sample=sample)


def _one(site: Site, layer: nn.Module, name: str, stream: torch.Generator) -> Tensor:
    blank = _blank_copy(layer)
    reset = _reset_of(blank)
    if reset is None:
        message = (
            f"{site.layer}: a {type(layer).__name__} has no `reset_parameters`, so no default of its own; "
        )
        raise UserError(message + "use `init: keep`, or another `init` by name")
    with keyed_global_rng(stream.initial_seed()), one_thread(), torch.no_grad():
        reset()
    drawn = blank.get_parameter(name).detach().contiguous()
    drawn = drawn.float() if drawn.is_floating_point() else drawn
    if drawn.is_floating_point() and bool(torch.isnan(drawn).any()):
        message = f"{site.layer}: `reset_parameters` of {type(layer).__name__} does not set all of `{name}`; "
        raise UserError(message + "use `init: keep` for it, or another `init` by name")
    return drawn


def _reset_of(layer: nn.Module) -> Callable[[], object] | None:
    found = (getattr(layer, name, None) for name in _RESETS)
    return next((reset for reset in found if callable(reset)), None)


def _blank_copy(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer and what is below it on the CPU, its parameters NaN and shared with nothing.

    Works for layers on any device, meta included; nothing of the live layer is read but shapes and
    settings.
    """
    blank = copy.copy(layer)
    vars(blank).update(
        _parameters={name: _blank(value) for name, value in layer._parameters.items()},  # noqa: SLF001
        _buffers={name: _zeros(value) for name, value in layer._buffers.items()},  # noqa: SLF001
        _modules={
            name: None if child is None else _blank_copy(child)
            for name, child in layer._modules.items()  # noqa: SLF001
        },
    )
    return blank


def _blank(value: nn.Parameter | None) -> nn.Parameter | None:
    """Return a parameter of NaN in float64, in which values are drawn whatever the layer's dtype."""
    if value is None:
        return None
    if not value.is_floating_point():
        return nn.Parameter(torch.zeros(value.shape, dtype=value.dtype, device="cpu"), requires_grad=False)
    return nn.Parameter(torch.full(value.shape, torch.nan, dtype=torch.float64, device="cpu"))


def _zeros(value: Tensor | None) -> Tensor | None:
    return None if value is None else torch.zeros(value.shape, dtype=value.dtype, device="cpu")
