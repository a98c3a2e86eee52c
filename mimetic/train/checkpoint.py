"""The state of a trial in one safetensors file, replaced in one step.

Weights, buffers, optimizer moments and the sums of an epoch under way are tensors; counters, the plan's
hash and a digest of the tensors stand in the header. One file cannot disagree with itself, nothing in it
executes code on loading, and order and augmentation are keyed by counters, so no state of a loader or
generator is needed: training continues bit for bit on a CPU (Runner research E1; mimetic.streams).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mimetic.errors import RunError, UserError
from mimetic.files import write_atomically

_MODEL = "model/"
_OPTIMIZER = "optimizer/"
_SUMS = "sums/"
_HEADER = "mimetic/1"


_NONE: Mapping[str, Tensor] = MappingProxyType({})


class UnreadableCheckpointError(RunError):
    """A checkpoint is damaged; the trial can only begin again."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trial after a step, on the CPU.

    Attributes:
        epoch: Epochs whose figures are known.
        step: Steps trained, those of the epoch under way included.
        model: State of the model by name, tied tensors once.
        moments: Tensors of the optimizer, `<parameter's number>/<key>`.
        sums: What the epoch under way has summed up, by name.
        spent: Seconds spent on it.
    """

    epoch: int
    step: int
    model: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    spent: float = 0.0

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Copy the state into a model and an optimizer built as when it was saved.

        Raises:
            RunError: If names or shapes differ.
        """
        _copy(self.model, into=model)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in self.moments.items():
            number, _, key = name.partition("/")
            parameter = parameters[int(number)]
            state.setdefault(int(number), {})[key] = (
                _laid_out(tensor, like=parameter) if tensor.ndim > 0 else tensor
            )
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    epoch: int,
    step: int,
    plan_hash: str,
    sums: Mapping[str, Tensor] = _NONE,
    spent: float = 0.0,
) -> None:
    """Write the state of a trial; a reader sees the checkpoint before or this one.

    Args:
        path: The file.
        model: The model.
        optimizer: Its optimizer.
        epoch: Epochs whose figures are known.
        step: Steps trained.
        plan_hash: What the state is bound to.
        sums: What the epoch under way has summed up.
        spent: Seconds spent on it.

    Raises:
        RunError: If it cannot be written, e.g. on a full disk; the checkpoint before stays.
    """
    tensors = {f"{_MODEL}{name}": _portable(tensor) for name, tensor in _state(model).items()}
    for number, values in optimizer.state_dict()["state"].items():
        moments = {key: value for key, value in values.items() if isinstance(value, Tensor)}
        tensors.update({f"{_OPTIMIZER}{number}/{key}": _portable(value) for key, value in moments.items()})
    tensors.update({f"{_SUMS}{name}": _portable(tensor) for name, tensor in sums.items()})
    _save(path, tensors, epoch=epoch, step=step, plan_hash=plan_hash, spent=spent)


def load_checkpoint(path: Path, *, plan_hash: str) -> Checkpoint | None:
    """Return the checkpoint of a trial, or None if there is none.

    Raises:
        UserError: If it was written under another plan.
        UnreadableCheckpointError: If the file is damaged.
    """
    if not path.exists():
        return None
    tensors, facts = _load(path, plan_hash=plan_hash)
    return Checkpoint(
        facts["epoch"],
        facts["step"],
        model=_below(_MODEL, tensors),
        moments=_below(_OPTIMIZER, tensors),
        sums=_below(_SUMS, tensors),
        spent=facts.get("spent", 0.0),
    )


def save_weights(path: Path, model: nn.Module, *, epoch: int, step: int, plan_hash: str) -> None:
    """Write parameters and buffers by their own names, readable by any safetensors reader.

    Raises:
        RunError: If the file cannot be written.
    """
    weights = {name: _portable(tensor) for name, tensor in _state(model).items()}
    _save(path, weights, epoch=epoch, step=step, plan_hash=plan_hash)


def load_weights(path: Path, *, plan_hash: str) -> Checkpoint | None:
    """Return final weights as a checkpoint without moments, or None if there are none.

    Raises:
        UserError: If they were trained under another plan.
        UnreadableCheckpointError: If the file is damaged.
    """
    if not path.exists():
        return None
    tensors, facts = _load(path, plan_hash=plan_hash)
    return Checkpoint(facts["epoch"], facts["step"], model=tensors, moments={})


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed writer left in a trial's folder."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers themselves, tied ones under their first name."""
    first: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            first.setdefault(id(tensor), (name, tensor))
    return dict(first.values())


def _portable(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU, which shares memory with nothing."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _laid_out(moment: Tensor, *, like: Tensor) -> Tensor:
    """Return an optimizer's tensor in its parameter's memory format, which fused steps rely on."""
    if moment.shape != like.shape:
        return moment
    return torch.empty_like(like, dtype=moment.dtype, requires_grad=False).copy_(moment)


@torch.no_grad()
def _copy(state: Mapping[str, Tensor], *, into: nn.Module) -> None:
    targets = _state(into)
    expected = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        names = sorted({name for name, _ in expected.items() ^ found.items()})
        raise RunError(f"the checkpoint does not fit the model: {', '.join(names[:5])} differ")
    for name, tensor in state.items():
        targets[name].copy_(tensor)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = blake2b(digest_size=16)
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _save(path: Path, tensors: dict[str, Tensor], **facts: object) -> None:
    facts["plan"] = facts.pop("plan_hash")
    header = {_HEADER: json.dumps({**facts, "digest": _digest(tensors)})}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path}: the file cannot be written ({error}): make room or choose another folder"
        ) from error


def _load(path: Path, *, plan_hash: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UnreadableCheckpointError(f"{path}: the checkpoint cannot be read ({error})") from error
    if not isinstance(facts, dict) or {"plan", "epoch", "step", "digest"} - set(facts):
        raise UnreadableCheckpointError(f"{path}: this is no state of a trial")
    if facts["plan"] != plan_hash:
        raise UserError(
            f"{path}: this state belongs to another plan ({facts['plan'][:12]}, not {plan_hash[:12]}): "
            "the recipe changed since; resume with the recipe stored beside it, or start a new study"
        )
    if facts["digest"] != _digest(tensors):
        raise UnreadableCheckpointError(f"{path}: the state is damaged (its digest does not match)")
    return tensors, facts
