"""Apply: the only place that writes weights. It draws, writes once, and verifies what it wrote."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mimetic.errors import RunError, UserError
from mimetic.graph import canonical_buffers, canonical_modules, canonical_parameters
from mimetic.initializers.draw import Moments
from mimetic.plan.entry import Action, Entry
from mimetic.plan.together import filled_together
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
        RunError: If values are not finite or miss the plan's prediction.
    """
    parameters = canonical_parameters(model)
    _check_same(entries, parameters)
    modules = canonical_modules(model)
    expected = {entry.parameter: entry.moments for entry in entries}
    # All draws come before the first write: one that fails must leave the model as it was.
    drawn: dict[str, Tensor] = {}
    for done, action in enumerate(actions, start=1):
        drawn |= _drawn(action, modules[action.layer], seed)
        if progress is not None:
            progress(done, len(actions))
    together, statistics, remarks = filled_together(model, actions, drawn, seed=seed)
    measured: list[Measured] = []
    for name, tensor in (drawn | together).items():
        _write(parameters[name], tensor, name)
        found = _verify(name, parameters[name], expected[name])
        measured.append(replace(found, remark=remarks.get(name)))
    for name, tensor in statistics.items():
        canonical_buffers(model)[name].copy_(tensor)
    for entry in entries:
        if entry.frozen:
            parameters[entry.parameter].requires_grad_(False)
    return tuple(measured)


def _drawn(action: Action, layer: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return what an action draws, by canonical parameter name."""

    def streams(local: str, slot: str) -> torch.Generator:
        return generator(seed, action.parameters[local] if local else action.site, slot)

    return {action.parameters[local]: t for local, t in action.draw.sample(streams, layer).items()}


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


@torch.no_grad()
def _verify(name: str, parameter: nn.Parameter, expected: Moments | None) -> Measured:
    values = parameter.detach()
    full = getattr(values, "full_tensor", None)
    values = (values if full is None else full()).double()
    mean, std = _moments(values)
    if not (math.isfinite(mean) and math.isfinite(std)):
        raise RunError(f"`{name}` holds values that are not finite after initialization")
    if expected is not None and values.numel() > 0:
        _compare(name, (mean, std), expected, torch.finfo(parameter.dtype).eps)
    return Measured(name, mean, std)


def _moments(values: Tensor) -> tuple[float, float]:
    if values.numel() == 0:
        return 0.0, 0.0
    mean = values.mean()
    return mean.item(), (values - mean).square().mean().sqrt().item()


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
