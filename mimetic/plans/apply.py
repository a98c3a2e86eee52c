"""Apply: the only place that writes weights. It draws, writes once, and verifies what it wrote."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_buffers, canonical_modules, canonical_parameters
from mimetic.initializers.draw import Moments, Streams
from mimetic.initializers.parallel import side_by_side
from mimetic.plans.entry import Action, Entry
from mimetic.plans.moments import moments
from mimetic.plans.together import filled_together
from mimetic.streams import generator

SIGMAS = 7.0
"""How many standard errors a measured moment may lie from its prediction: about one false alarm in
10¹¹ Gaussian draws, so a miss means the initializer is wrong."""


Progress = Callable[[int, int], None]
"""`progress(done, total)`: told after each draw; what it raises ends the work before anything is written."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Moments of one written parameter, as measured; a remark where its draw has something to say."""

    parameter: str
    mean: float
    std: float
    remark: str | None = None


def apply(
    entries: Sequence[Entry],
    actions: Sequence[Action],
    model: nn.Module,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Measured, ...]:
    """Draw every action of a plan, write it into a model, verify it and freeze what the plan freezes.

    The values depend on the seed and on canonical names only: not on the order of rules or layers, the
    number of threads, the device or the dtype they are written to.

    Args:
        entries: The plan's entries.
        actions: The plan's draws.
        model: The model the plan was made for, or one of the same parameters; on any real device.
        seed: Seed of the run.
        progress: Told how many draws are done: those of large attentions take seconds.

    Returns:
        The measured moments of each parameter that was written.

    Raises:
        UserError: If the model's parameters are not those of the plan; nothing is written then.
        RunError: If values are not finite, or miss the plan's prediction or a draw's own check.
    """
    parameters = canonical_parameters(model)
    _check_same(entries, parameters)
    modules = canonical_modules(model)
    expected = {entry.parameter: entry.moments for entry in entries}
    # All draws come before the first write: one that fails must leave the model as it was.
    drawn = _all_drawn(actions, modules, seed, progress)
    together, statistics, remarks = filled_together(model, actions, drawn, seed=seed)

    def settle(item: tuple[str, Tensor]) -> Measured:
        name, tensor = item
        _write(parameters[name], tensor, name)
        found = _verify(name, parameters[name], expected[name])
        return replace(found, remark=remarks.get(name))

    measured = list(side_by_side(settle, list((drawn | together).items())))
    for action in actions:
        _check(action, parameters, seed)
    for name, tensor in statistics.items():
        canonical_buffers(model)[name].copy_(tensor)
    for entry in entries:
        if entry.frozen:
            parameters[entry.parameter].requires_grad_(False)
    return tuple(measured)


def _all_drawn(
    actions: Sequence[Action],
    modules: Mapping[str, nn.Module],
    seed: int,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """Return what all actions draw; those that touch nothing global, on several threads."""

    def draw(action: Action) -> dict[str, Tensor]:
        return _drawn(action, modules[action.layer], seed)

    apart = [action for action in actions if action.draw.apart]
    others = [action for action in actions if not action.draw.apart]
    results = chain(side_by_side(draw, apart), map(draw, others))
    found: dict[int, dict[str, Tensor]] = {}
    for action, result in zip((*apart, *others), results, strict=True):
        found[id(action)] = result
        if progress is not None:
            progress(len(found), len(actions))
    return {name: tensor for action in actions for name, tensor in found[id(action)].items()}


def _drawn(action: Action, layer: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return what an action draws, by canonical parameter name."""
    sampled = action.draw.sample(_streams(action, seed), layer)
    return {action.parameters[local]: tensor for local, tensor in sampled.items()}


def _streams(action: Action, seed: int) -> Streams:
    def streams(local: str, slot: str) -> torch.Generator:
        return generator(seed, action.parameters[local] if local else action.site, slot)

    return streams


def _check_same(entries: Sequence[Entry], parameters: dict[str, nn.Parameter]) -> None:
    planned = {entry.parameter: entry.shape for entry in entries}
    wrong = [name for name in planned if name not in parameters]
    wrong += [
        name
        for name, shape in planned.items()
        if name in parameters and tuple(parameters[name].shape) != shape
    ]
    wrong += [name for name in parameters if name not in planned]
    if wrong:
        shown = ", ".join(f"`{name}`" for name in wrong[:5])
        raise UserError(
            f"the plan was made for another model: {len(wrong)} parameters are missing, new or of another "
            f"shape, {shown}; make the plan from this model"
        )
    meta = [name for name, parameter in parameters.items() if parameter.is_meta]
    if meta:
        raise UserError(
            f"`{meta[0]}` is on the meta device and holds no values; "
            "build the model on a real device to apply a plan"
        )


@torch.no_grad()
def _write(parameter: nn.Parameter, drawn: Tensor, name: str) -> None:
    if drawn.shape != parameter.shape:
        raise RunError(f"`{name}` has shape {tuple(parameter.shape)}, its draw {tuple(drawn.shape)}")
    parameter.copy_(_local(drawn, parameter))


def _local(drawn: Tensor, parameter: nn.Parameter) -> Tensor:
    """Give a sharded parameter its shard of the full draw, which is the same on every rank."""
    placements = getattr(parameter, "placements", None)
    if placements is None:
        return drawn
    from torch.distributed.tensor import distribute_tensor

    mesh = parameter.device_mesh  # type: ignore[attr-defined]
    return distribute_tensor(
        drawn.to(mesh.device_type, parameter.dtype), mesh, placements, src_data_rank=None
    )


def _whole(parameter: nn.Parameter) -> Tensor:
    """Return the values of a parameter, gathered from its shards where it has any."""
    values = parameter.detach()
    full = getattr(values, "full_tensor", None)
    return values if full is None else full()


@torch.no_grad()
def _check(action: Action, parameters: Mapping[str, nn.Parameter], seed: int) -> None:
    """Hold what an action wrote against what its draw promises beyond moments."""
    if action.draw.check is None:
        return
    owned = {local: parameters[name] for local, name in action.parameters.items()}
    stored = {local: _whole(parameter).to("cpu", torch.float64) for local, parameter in owned.items()}
    dtypes = {torch.float32, *(parameter.dtype for parameter in owned.values())}  # draws are float32
    rounding = max(torch.finfo(dtype).eps for dtype in dtypes)
    missed = action.draw.check(_streams(action, seed), stored, rounding)
    if missed:
        raise RunError(
            f"`{action.site}` does not follow its plan: it is not so that {'; nor that '.join(missed)}; "
            "the initializer is at fault"
        )


@torch.no_grad()
def _verify(name: str, parameter: nn.Parameter, expected: Moments | None) -> Measured:
    values = _whole(parameter)
    mean, std = moments(values, about=0.0 if expected is None else expected.mean)
    if not (math.isfinite(mean) and math.isfinite(std)):
        raise RunError(f"`{name}` holds values that are not finite after initialization")
    if expected is not None and values.numel() > 0:
        _compare(name, (mean, std), expected, torch.finfo(parameter.dtype).eps)
    return Measured(name, mean, std)


def _compare(name: str, measured: tuple[float, float], expected: Moments, rounding: float) -> None:
    """Hold measured moments against the prediction, at the precision the number of draws allows."""
    mean, std = measured
    size = max(abs(expected.mean), expected.std)
    floor = 10 * rounding * size + 1e-12
    spread = SIGMAS / math.sqrt(expected.draws) if expected.draws > 0 else 0.0
    # The empirical deviation of few draws lies below the law's: its own mean is taken out.
    if abs(mean - expected.mean) > spread * expected.std + floor or (
        spread < 1.0 and abs(std - expected.std) > spread * expected.std + floor
    ):
        raise RunError(
            f"`{name}` does not follow its plan: mean {mean:.5g} and std {std:.5g} were measured, "
            f"mean {expected.mean:.5g} and std {expected.std:.5g} predicted; the initializer is at fault"
        )
