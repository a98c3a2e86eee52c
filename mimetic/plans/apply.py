"""Apply a plan: draw, write once, verify what was written. Nothing else in mimetic writes weights."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import torch
from torch import Tensor, nn

from mimetic.ambient import fixed_settings
from mimetic.config.suggest import listed
from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_buffers, canonical_modules, canonical_parameters
from mimetic.initializers.resolved import Moments, Streams
from mimetic.plans.entry import Action, Entry
from mimetic.streams import generator
from mimetic.threads import side_by_side

SIGMAS = 7.0
"""Standard errors by which a measured moment may differ from its prediction: about one false alarm in
10¹¹ Gaussian draws, so a miss means that the initializer is wrong."""

_CHUNK = 1 << 17
"""Entries converted to float64 at once: few enough for a core's cache, enough to keep threads busy."""

Progress = Callable[[int, int], None]
"""`progress(done, total)`, called after each draw; what it raises stops before anything is written."""


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """The measured moments of one written parameter, and a remark of its initializer."""

    parameter: str
    mean: float
    std: float
    remark: str | None = None


@fixed_settings()
def apply(
    entries: Sequence[Entry],
    actions: Sequence[Action],
    model: nn.Module,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[WrittenTensor, ...]:
    """Draw every action of a plan, write it into a model, verify it, and freeze what the plan freezes.

    The values depend on the seed and on canonical names only: not on the order of rules or layers, the
    number of threads, the device or the dtype they are written to.

    Args:
        entries: The plan's entries.
        actions: The plan's draws.
        model: The model of the plan, or one with the same parameters; on any real device.
        seed: Seed of the run.
        progress: Progress callback `(done, total)`; large attention draws can take seconds.

    Returns:
        The measured moments of each parameter that was written.

    Raises:
        UserError: If the model's parameters are not those of the plan; nothing is written then.
        RunError: If values are not finite, or differ from the plan's prediction or another promise.
    """
    # 1. The model must be the one that was planned.
    parameters = canonical_parameters(model)
    _check_model(entries, parameters)
    # 2. Everything is drawn before the first write: a draw that fails leaves the model as it was.
    drawn = _draw_all(actions, canonical_modules(model), seed, progress)
    network = _apply_network_initializers(model, actions, drawn, seed=seed)
    # 3. Each tensor is written once and its moments are compared with the prediction.
    expected = {entry.parameter: entry.moments for entry in entries}

    def write_and_verify(item: tuple[str, Tensor]) -> WrittenTensor:
        name, tensor = item
        _write(parameters[name], tensor, name)
        mean, std = _verify(name, parameters[name], expected[name])
        return WrittenTensor(name, mean, std, network.remarks.get(name))

    written = side_by_side(write_and_verify, list((drawn | network.parameters).items()))
    buffers = canonical_buffers(model) if network.buffers else {}
    for name, tensor in network.buffers.items():
        buffers[name].copy_(tensor)
    for action in actions:
        if action.init.check is not None:
            action.init.check(lambda name: _full_tensor(parameters[name]).to("cpu", torch.float64))
    # 4. Frozen parameters take no gradient.
    for entry in entries:
        if entry.frozen:
            parameters[entry.parameter].requires_grad_(False)
    return tuple(written)


def _check_model(entries: Sequence[Entry], parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse a model whose parameters are not those of the plan, or hold no values."""
    planned = {entry.parameter: entry.shape for entry in entries}
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    wrong = [name for name in planned | shapes if planned.get(name) != shapes.get(name)]
    if wrong:
        raise UserError(
            f"the plan does not match the model: {len(wrong)} parameters are missing, new or of another "
            f"shape: {listed(wrong, 5)}; make the plan from this model",
            code="MIM-P030",
        )
    meta = next((name for name, parameter in parameters.items() if parameter.is_meta), None)
    if meta is not None:
        raise UserError(
            f"`{meta}` is on the meta device, without values; build the model on a real device to apply it",
            code="MIM-P031",
        )


def _draw_all(
    actions: Sequence[Action], modules: Mapping[str, nn.Module], seed: int, progress: Progress | None
) -> dict[str, Tensor]:
    """Return what all actions draw, by canonical parameter name; thread-safe draws run on several threads."""
    done = count(1)

    def draw(action: Action) -> dict[str, Tensor]:
        streams = Streams(seed, action.site, action.parameters)
        sampled = action.init.sample(streams, modules[action.layer])
        return {action.parameters[local]: tensor for local, tensor in sampled.items()}

    def report() -> None:
        if progress is not None:
            progress(next(done), len(actions))

    threaded = [action for action in actions if action.init.thread_safe]
    results = side_by_side(draw, threaded, on_result=report)
    drawn = dict(zip(map(id, threaded), results, strict=True))
    for action in actions:
        if not action.init.thread_safe:
            drawn[id(action)] = draw(action)
            report()
    return {name: tensor for action in actions for name, tensor in drawn[id(action)].items()}


@dataclass(slots=True)
class _NetworkValues:
    """What network initializers computed: tensors by canonical name, remarks by parameter name."""

    parameters: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


def _apply_network_initializers(
    model: nn.Module, actions: Sequence[Action], drawn: Mapping[str, Tensor], *, seed: int
) -> _NetworkValues:
    """Fill the layers whose values depend on the network around them, on a copy with all other draws.

    Raises:
        UserError: If the network is sharded, or cannot be copied or run.
    """
    # Layers of one initializer are filled together; those that must see the result of the others come last.
    groups: dict[tuple[bool, str], list[Action]] = {}
    for action in actions:
        if action.init.network_init is not None:
            groups.setdefault((action.init.network_init.last, action.init.network_init.key), []).append(
                action
            )
    values = _NetworkValues()
    if not groups:
        return values
    network = _copy_with(model, drawn)
    parameters, buffers = canonical_parameters(network), canonical_buffers(network)
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    for _, group in sorted(groups.items(), key=lambda item: item[0][0]):
        inits = {action.layer: action.init.network_init for action in group}
        arguments = {layer: init.argument for layer, init in inits.items() if init is not None}
        first = group[0].init.network_init
        assert first is not None
        remarks = first.fill(network, arguments, lambda name, slot: generator(seed, name, slot))
        names = {action.layer: list(action.parameters.values()) for action in group}
        values.remarks |= {names[layer][0]: remark for layer, remark in remarks.items()}
        for name in chain.from_iterable(names.values()):
            values.parameters[name] = parameters[name].detach().contiguous()
    values.buffers |= {n: buffer for n, buffer in buffers.items() if not torch.equal(before[n], buffer)}
    return values


@torch.no_grad()
def _copy_with(model: nn.Module, drawn: Mapping[str, Tensor]) -> nn.Module:
    """Return a float32 copy of the network on the CPU, without wrappers, with the draws written."""
    inner = canonical_modules(model)[""]
    if any(getattr(parameter, "placements", None) is not None for parameter in inner.parameters()):
        raise UserError(
            "an initializer runs the whole network, and the model is sharded; initialize it before sharding",
            code="MIM-P032",
        )
    network = copy.deepcopy(inner).to("cpu").float()
    parameters = canonical_parameters(network)
    for name, tensor in drawn.items():
        parameters[name].copy_(tensor)
    return network


@torch.no_grad()
def _write(parameter: nn.Parameter, drawn: Tensor, name: str) -> None:
    if drawn.shape != parameter.shape:
        raise RunError(
            f"`{name}` has shape {tuple(parameter.shape)}, but its draw has {tuple(drawn.shape)}",
            code="MIM-P033",
        )
    parameter.copy_(_local_shard(drawn, parameter))


def _local_shard(drawn: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a sharded parameter's shard of the full draw, which is the same on every rank."""
    placements = getattr(parameter, "placements", None)
    if placements is None:
        return drawn
    from torch.distributed.tensor import distribute_tensor

    mesh = parameter.device_mesh  # type: ignore[attr-defined]
    full = drawn.to(mesh.device_type, parameter.dtype)
    return distribute_tensor(full, mesh, placements, src_data_rank=None)


def _full_tensor(parameter: nn.Parameter) -> Tensor:
    """Return the values of a parameter, gathered from its shards if it is sharded."""
    values = parameter.detach()
    gather = getattr(values, "full_tensor", None)
    return values if gather is None else gather()


@torch.no_grad()
def _verify(name: str, parameter: nn.Parameter, expected: Moments | None) -> tuple[float, float]:
    """Return the measured mean and std of a written parameter, compared with what the plan expects."""
    values = _full_tensor(parameter)
    mean, std = mean_and_std(values, about=0.0 if expected is None else expected.mean)
    if not (math.isfinite(mean) and math.isfinite(std)):
        raise RunError(f"`{name}` has values that are not finite after initialization", code="MIM-P035")
    if expected is not None and values.numel() > 0:
        rounding = max(torch.finfo(parameter.dtype).eps, torch.finfo(torch.float32).eps)
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
