"""Apply a plan: draw, write once, verify what was written. Nothing else in mimetic writes weights."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor, nn

from mimetic.ambient import fixed_settings
from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.graph.computed import Computed, computed_in
from mimetic.graph.names import canonical_buffers, canonical_modules, canonical_parameters, joined, walk
from mimetic.graph.targets import Target, targets
from mimetic.initializers.resolved import NetworkInit, Streams
from mimetic.plans.entry import Action, Entry
from mimetic.plans.write import reader, set_trainable, stage, write
from mimetic.streams import generator
from mimetic.threads import side_by_side

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
        UserError: If the model's parameters are not those of the plan, or cannot contain the values.
        RunError: If values are not finite, or differ from the plan's prediction or another promise.
            Nothing is written if anything is raised.
    """
    # 1. The model must be the one that was planned.
    known = targets(walk(model))
    _check_model(entries, known)
    # 2. Everything is drawn before the first write: a draw that fails leaves the model as it was.
    drawn = _draw_all(actions, canonical_modules(model), seed, progress)
    network = _apply_network_initializers(model, actions, drawn, seed=seed)
    # 3. What will be written is compared with the prediction, as the parameters will contain it.
    expected = {entry.parameter: entry.moments for entry in entries}
    values = {name: tensor for name, tensor in (drawn | network.parameters).items() if name in expected}
    staged = stage(values, known, expected, seed=seed)
    buffers = {name: tensor for name, tensor in drawn.items() if name not in expected} | network.buffers
    for action in actions:
        if action.init.check is not None:
            action.init.check(reader(known, staged))
    # 4. Nothing can fail any more: each tensor is written once, and compared with what was written.
    write(model, staged, buffers)
    # 5. Frozen parameters take no gradient, and the others do.
    for entry in entries:
        set_trainable(known[entry.parameter], entry.fixed)
    return tuple(WrittenTensor(one.name, one.mean, one.std, network.remarks.get(one.name)) for one in staged)


def _check_model(entries: Sequence[Entry], known: Mapping[str, Target]) -> None:
    """Refuse a model whose parameters are not those of the plan, or without values."""
    planned = {entry.parameter: (entry.shape, entry.stored) for entry in entries}
    shapes = {name: (tuple(target.like.shape), _parts(target)) for name, target in known.items()}
    wrong = [name for name in planned | shapes if planned.get(name) != shapes.get(name)]
    if wrong:
        raise UserError(
            f"the plan does not match the model: {len(wrong)} parameters are missing, new or of another "
            f"shape: {listed(wrong, 5)}; make the plan from this model",
            code="MIM-P030",
        )
    stored = {name: p for target in known.values() for name, p in target.stored.items()}
    meta = next((name for name, parameter in stored.items() if parameter.is_meta), None)
    if meta is not None:
        raise UserError(
            f"`{meta}` is on the meta device, without values; build the model on a real device to apply it",
            code="MIM-P031",
        )


def _parts(target: Target) -> tuple[str, ...]:
    return tuple(target.stored) if isinstance(target.tensor, Computed) else ()


def _draw_all(
    actions: Sequence[Action], modules: Mapping[str, nn.Module], seed: int, progress: Progress | None
) -> dict[str, Tensor]:
    """Return what all actions draw, by canonical name; thread-safe draws run on several threads."""
    done = count(1)

    def draw(action: Action) -> dict[str, Tensor]:
        streams = Streams(seed, action.site, action.parameters)
        sampled = action.init.sample(streams, modules[action.layer])
        # What is not a parameter of the site is a buffer of its layer.
        return {action.parameters.get(n, joined(action.layer, n)): tensor for n, tensor in sampled.items()}

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
    groups: dict[tuple[bool, str], list[tuple[Action, NetworkInit]]] = {}
    for action in actions:
        step = action.init.network_init
        if step is not None:
            groups.setdefault((step.last, step.key), []).append((action, step))
    values = _NetworkValues()
    if not groups:
        return values
    network = _copy_with(model, drawn, seed)
    parameters, buffers = canonical_parameters(network), canonical_buffers(network)
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    for _, group in sorted(groups.items(), key=lambda item: item[0][0]):
        arguments = {action.layer: step.argument for action, step in group}
        fill = group[0][1].fill
        remarks = fill(network, arguments, lambda name, slot: generator(seed, name, slot))
        for action, step in group:
            for local, rows in step.zero_rows.items():
                parameters[action.parameters[local]].data[list(rows)] = 0.0
            names = list(action.parameters.values())
            if action.layer in remarks:
                values.remarks[names[0]] = remarks[action.layer]
            values.parameters |= {name: parameters[name].detach().contiguous() for name in names}
    values.buffers |= {n: buffer for n, buffer in buffers.items() if not torch.equal(before[n], buffer)}
    return values


@torch.no_grad()
def _copy_with(model: nn.Module, drawn: Mapping[str, Tensor], seed: int) -> nn.Module:
    """Return a float32 copy of the network on the CPU, without wrappers, with the draws written."""
    inner = canonical_modules(model)[""]
    if any(getattr(parameter, "placements", None) is not None for parameter in inner.parameters()):
        raise UserError(
            "an initializer runs the whole network, and the model is sharded; initialize it before sharding",
            code="MIM-P032",
        )
    # What a hook computed last is part of a graph, which cannot be copied.
    memo: dict[int, object] = {}
    for module in inner.modules():
        for found in computed_in(module):
            last = vars(module).get(found.local)
            if isinstance(last, Tensor):
                memo[id(last)] = last.detach().clone()
    network = copy.deepcopy(inner, memo).to("cpu").float()
    known = targets(walk(network))
    values = {name: tensor for name, tensor in drawn.items() if name in known}
    buffers = {name: tensor for name, tensor in drawn.items() if name not in known}
    write(network, stage(values, known, {}, seed=seed), buffers)
    return network
