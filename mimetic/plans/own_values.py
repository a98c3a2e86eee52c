"""Compare what `init: default` draws with a model's values: its own initialization, unless it is trained."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from mimetic.ambient import fixed_settings
from mimetic.errors import UserError
from mimetic.graph.computed import Computed
from mimetic.graph.names import canonical_modules, walk
from mimetic.graph.targets import targets
from mimetic.models.reset import draw_default
from mimetic.plans.entry import Action
from mimetic.plans.plan import Plan

_SAMPLE = 1 << 14
"""Most entries of a tensor that are compared."""

_CLOSE = 0.02
"""Relative difference of moments, beyond five standard errors, that counts as none."""


@fixed_settings()
def with_own_values(plan: Plan, model: nn.Module) -> Plan:
    """Note in a plan where `init: default` draws another distribution than the values of the model.

    A class initializes its layers by `reset_parameters`; the model that contains them may do so otherwise.
    Layers of one class and shape are drawn once, and moments are those of up to 16384 entries.

    Args:
        plan: The plan; one without `init: default` is returned as it is.
        model: The model of the plan; parameters on the meta device are not compared.
    """
    actions = [action for action in plan.actions if action.init.name == "default"]
    if not actions:
        return plan
    modules, known = canonical_modules(model), targets(walk(model))
    drawn: dict[object, Mapping[str, Tensor]] = {}
    notes: dict[str, str] = {}
    # Layers of one class and shape draw one distribution.
    for action in actions:
        names = action.parameters
        tensors = {local: known[name].tensor for local, name in names.items()}
        stored = {n: t for n, t in tensors.items() if not (isinstance(t, Computed) or t.is_meta)}
        layer = modules[action.layer]
        key = (type(layer), tuple((n, t.shape) for n, t in stored.items()), layer.extra_repr())
        if stored and key not in drawn:
            drawn[key] = _drawn(layer, action, plan.seed)
        for local, tensor in stored.items():
            default = drawn[key].get(local)
            difference = None if default is None else _difference(tensor.detach(), default)
            if difference is not None:
                notes[names[local]] = f"the model's own values {difference}; `init: keep` leaves those"
    entries = (
        replace(e, notes=(*e.notes, notes[e.parameter])) if e.parameter in notes else e for e in plan.entries
    )
    return replace(plan, entries=tuple(entries)) if notes else plan


def _drawn(layer: nn.Module, action: Action, seed: int) -> Mapping[str, Tensor]:
    """Return what the class draws; nothing where it cannot, which is an error of `apply`."""
    with suppress(UserError):
        return draw_default(layer, seed=seed, name=action.site, wanted=action.parameters)
    return {}


def _difference(own: Tensor, default: Tensor) -> str | None:
    """Describe how moments of a tensor differ from those of the default; None if they do not."""
    count, mean, std = _moments(own)
    _, default_mean, default_std = _moments(default)
    size, error = max(std, default_std), _CLOSE + 5.0 / math.sqrt(max(count, 1))
    few = error > 1.0 and size > 0.0  # of few entries, only a constant is distinguishable from a draw
    constant = (std == 0.0) != (default_std == 0.0) and count > 1
    shifted = not few and abs(mean - default_mean) > 1.5 * error * size + 1e-6
    if not (constant or shifted or (not few and abs(std - default_std) > error * size)):
        return None
    if std == 0.0:
        return f"are all {mean:.3g}"
    shift = f", with mean {mean:.2g}" if shifted else ""
    if default_std == 0.0:
        return f"have std {std:.2g}, and the default's are all {default_mean:.3g}"
    return f"have {std / default_std:.2g} times the std of the default{shift}"


def _moments(tensor: Tensor) -> tuple[int, float, float]:
    """Return the number of compared entries, their mean and their std."""
    flat = tensor.reshape(-1)
    sample = flat[:: max(1, math.ceil(len(flat) / _SAMPLE))].to("cpu", torch.float64)
    if len(sample) == 0:
        return 0, 0.0, 0.0
    return len(sample), float(sample.mean()), float(sample.std(correction=0))
