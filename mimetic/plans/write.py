"""Write drawn values into a model: stage and verify all of them first, then write each one once."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimetic.errors import RunError
from mimetic.graph.computed import Computed, Solution
from mimetic.graph.names import canonical_buffers
from mimetic.graph.own import own_buffers, own_parameters
from mimetic.graph.targets import Target
from mimetic.initializers.resolved import Moments
from mimetic.threads import side_by_side

SIGMAS = 7.0
"""Standard errors by which a measured moment may differ from its prediction: about one false alarm in
10¹¹ Gaussian draws, so a miss means that the initializer is wrong."""

_CHUNK = 1 << 17
"""Entries converted to float64 at once: few enough for a core's cache, enough to keep threads busy."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Values that will be written to a target.

    Attributes:
        name: Its canonical name.
        target: The target.
        solution: The values of its parts, and those that its layer will use, in their dtypes on the CPU.
        mean: Mean of the values that its layer will use.
        std: Their root mean square deviation from it.
    """

    name: str
    target: Target
    solution: Solution
    mean: float
    std: float


def stage(
    drawn: Mapping[str, Tensor],
    known: Mapping[str, Target],
    expected: Mapping[str, Moments | None],
    *,
    seed: int,
) -> list[Staged]:
    """Return what will be written for drawn values, compared with the prediction; nothing is written.

    Args:
        drawn: Values by canonical name.
        known: The targets of the model.
        expected: Predicted moments by canonical name, where they are known.
        seed: Seed of the run.

    Raises:
        UserError: If a layer computes its weight such that it cannot use the values.
        RunError: If the values are not finite in the parameter's dtype, or differ from the prediction.
    """

    def staged(name: str) -> Staged:
        target = known[name]
        solution = _solved(name, target, drawn[name], seed)
        used = solution.used if solution.free is None else solution.used[solution.free]
        mean, std = _verify(name, used, drawn[name], expected.get(name))
        return Staged(name, target, solution, mean, std)

    # Right inverses may draw from the global stream, which threads share.
    computed = [name for name in drawn if isinstance(known[name].tensor, Computed)]
    plain = [name for name in drawn if not isinstance(known[name].tensor, Computed)]
    found = {one.name: one for one in (*side_by_side(staged, plain), *map(staged, computed))}
    return [found[name] for name in drawn]


def reader(known: Mapping[str, Target], staged: Sequence[Staged]) -> Callable[[str], Tensor]:
    """Return a function that returns a target's values as they will be, float64 on the CPU, by name."""
    new = {one.name: one.solution.used for one in staged}

    def read(name: str) -> Tensor:
        return (new[name] if name in new else known[name].current()).to(torch.float64)

    return read


def write(model: nn.Module, staged: Sequence[Staged], buffers: Mapping[str, Tensor]) -> None:
    """Write staged values and buffers into a model, and compare the parameters with what was written.

    Raises:
        RunError: If a parameter does not contain what was written to it.
    """
    # 1. Every part and every buffer is written once.
    written = [(one.name, live, values) for one in staged for live, values in _pairs(one)]
    for _, live, values in written:
        _copy(live, values)
    live_buffers = canonical_buffers(model) if buffers else {}
    for name, values in buffers.items():
        _copy(live_buffers[name], values)
    # 2. What a hook computes is an attribute, which the next forward would set.
    for one in staged:
        computed = one.target.tensor
        if isinstance(computed, Computed) and computed.hook is not None:
            device = next(iter(computed.stored.values())).device
            vars(computed.layer)[computed.local] = one.solution.used.to(device)
    # 3. All are compared with what was written, after the last write.
    with torch.no_grad():
        for name, live, values in written:
            if not torch.equal(_local(live), _local(_as_stored(values, live)).to(_local(live).device)):
                raise RunError(
                    f"`{name}` does not contain what was written to it: another tensor shares its memory, or "
                    "another thread writes to it",
                    code="MIM-P034",
                )


def set_trainable(target: Target, fixed: Collection[str]) -> None:
    """Make the parameters of a target trainable, except those of given names and those of integers."""
    plain = isinstance(target.tensor, nn.Parameter)
    named: Iterable[tuple[str, nn.Parameter]] = (
        ((name, same) for name in target.stored for same in target.same) if plain else target.stored.items()
    )
    for name, parameter in named:
        wanted = name not in fixed and (parameter.is_floating_point() or parameter.is_complex())
        if parameter.requires_grad != wanted:
            with torch.inference_mode(parameter.is_inference()):
                parameter.requires_grad_(wanted)


def _solved(name: str, target: Target, drawn: Tensor, seed: int) -> Solution:
    """Return the values of a target's parts, in their dtypes."""
    like = target.like
    if drawn.shape != like.shape:
        raise RunError(
            f"`{name}` has shape {tuple(like.shape)}, but its draw has {tuple(drawn.shape)}",
            code="MIM-P033",
        )
    if target.obstacle is not None:
        raise RunError(f"`{name}` cannot be initialized: {target.obstacle}", code="MIM-P037")
    if not torch.can_cast(drawn.dtype, like.dtype):
        raise RunError(
            f"`{name}` is {like.dtype} and cannot contain the values of its draw, which are {drawn.dtype}",
            code="MIM-P038",
        )
    if isinstance(target.tensor, Computed):
        return target.tensor.solve(drawn, name=name, seed=seed)
    values = drawn.detach().to(like.dtype)
    return Solution({"": values}, values)


def _pairs(staged: Staged) -> list[tuple[Tensor, Tensor]]:
    """Return live tensors and their new values."""
    computed = staged.target.tensor
    if not isinstance(computed, Computed):
        return [(computed, staged.solution.parts[""])]
    pairs = []
    for path, values in staged.solution.parts.items():
        above, _, local = path.rpartition(".")
        owner = computed.layer.get_submodule(above)
        live = {**own_buffers(owner), **own_parameters(owner)}[local]
        assert live is not None
        pairs.append((live, values))
    return pairs


def _copy(live: Tensor, values: Tensor) -> None:
    # Tensors made in inference mode can only be written in it.
    with torch.inference_mode(live.is_inference()), torch.no_grad():
        live.copy_(_as_stored(values, live))


def _as_stored(values: Tensor, live: Tensor) -> Tensor:
    """Return a sharded tensor's shard of the full values, which are the same on every rank."""
    placements = getattr(live, "placements", None)
    if placements is None:
        return values
    from torch.distributed.tensor import distribute_tensor

    mesh = live.device_mesh  # type: ignore[attr-defined]
    full = values.to(mesh.device_type, live.dtype)
    return distribute_tensor(full, mesh, placements, src_data_rank=None)


def _local(tensor: Tensor) -> Tensor:
    """Return a tensor, or the shard of a sharded one that is here."""
    local = getattr(tensor.detach(), "to_local", None)
    shard: Tensor = tensor.detach() if local is None else local()
    return shard


def _verify(name: str, used: Tensor, drawn: Tensor, expected: Moments | None) -> tuple[float, float]:
    """Return the mean and std of values, compared with what the plan expects."""
    mean, std = mean_and_std(used, about=0.0 if expected is None else expected.mean)
    if not (math.isfinite(mean) and math.isfinite(std)):
        if bool(drawn.isfinite().all()):
            raise RunError(
                f"`{name}` is {str(used.dtype).removeprefix('torch.')}, which cannot contain values up to "
                f"{float(drawn.abs().max()):.4g}; draw smaller ones, or use another dtype",
                code="MIM-P039",
            )
        raise RunError(f"`{name}` would have values that are not finite", code="MIM-P035")
    if expected is not None and used.numel() > 0:
        # Values are drawn in float32 at most, whatever the parameter's dtype.
        rounding = max(torch.finfo(used.dtype).eps, torch.finfo(torch.float32).eps)
        _compare(name, (mean, std), expected, rounding)
    return mean, std


def _compare(name: str, measured: tuple[float, float], expected: Moments, rounding: float) -> None:
    """Compare measured and predicted mean and std within sampling error."""
    mean, std = measured
    size = max(abs(expected.mean), expected.std)
    floor = 10 * rounding * size + 1e-12
    spread = SIGMAS / math.sqrt(expected.draws) if expected.draws > 0 else 0.0
    # The std of a few draws is biased below that of the distribution: their own mean is subtracted.
    if abs(mean - expected.mean) > spread * expected.std + floor or (
        spread < 1.0 and abs(std - expected.std) > spread * expected.std + floor
    ):
        raise RunError(
            f"`{name}` does not follow its plan: measured mean {mean:.5g} and std {std:.5g}, predicted "
            f"mean {expected.mean:.5g} and std {expected.std:.5g}; this is a bug in the initializer",
            code="MIM-P036",
        )


def mean_and_std(values: Tensor, about: float = 0.0) -> tuple[float, float]:
    """Return the mean and the rms deviation from it, in float64, in one pass over memory.

    Sums are taken of x - `about`, a value near the mean: a small deviation is not lost to rounding. Of
    complex entries, the mean is that of the real parts, and the deviation from it is that of both.
    """
    if values.is_complex():
        mean, std = mean_and_std(values.real, about)
        return mean, math.hypot(std, *mean_and_std(values.imag))
    count = values.numel()
    if count == 0:
        return 0.0, 0.0
    total = square = 0.0
    size = min(count, _CHUNK) if values.device.type == "cpu" else count
    # One buffer for all chunks: fresh memory costs more than the sums.
    buffer = torch.empty(size, dtype=torch.float64, device=values.device)
    for chunk in torch.split(values.reshape(-1), size):
        shifted = buffer[: len(chunk)].copy_(chunk)
        if about != 0.0:
            shifted.sub_(about)
        total += shifted.sum().item()
        square += torch.dot(shifted, shifted).item()
    mean = total / count
    variance = square / count - mean * mean
    return about + mean, math.sqrt(variance) if variance > 0.0 else variance * 0.0
