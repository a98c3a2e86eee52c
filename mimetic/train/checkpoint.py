"""The state of a trial in one safetensors file, replaced atomically.

Weights, buffers, optimizer moments and the sums of the current epoch are tensors; counters, the plan's hash
and a digest of the tensors are in the header. One file cannot disagree with itself, and loading it executes
no code. Order and augmentation are keyed by counters, so no state of a loader or generator is needed:
training continues bit for bit on a CPU.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mimetic.errors import RunError, UserError
from mimetic.files import JsonObject, write_atomically

CHECKPOINT = "state.safetensors"
WEIGHTS = "weights.safetensors"

_MODEL = "model/"
_OPTIMIZER = "optimizer/"
_SUMS = "sums/"
_HEADER = "mimetic/1"


class UnreadableCheckpointError(RunError):
    """A checkpoint is damaged; the trial can only start over."""


@dataclass(slots=True)
class Progress:
    """How far a trial has come.

    Steps include those of the current epoch; so do its time in seconds and the sums over its steps.
    """

    epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trial after a step, on the CPU.

    The model has tied tensors once; moments are the optimizer's tensors by `<parameter index>/<key>`.
    """

    progress: Progress
    model: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Copy the state into a model and an optimizer of the same structure.

        Raises:
            RunError: If names or shapes differ.
        """
        _copy_into(model, self.model)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in self.moments.items():
            index, _, key = name.partition("/")
            moment = _in_layout(tensor, like=parameters[int(index)]) if tensor.ndim > 0 else tensor
            state.setdefault(int(index), {})[key] = moment
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def find_checkpoint(folder: Path, *, plan_hash: str, epochs: int) -> tuple[Checkpoint | None, str | None]:
    """Return the checkpoint to continue from, or None and the reason why a damaged one is ignored.

    Final weights without a checkpoint mean that the trial was killed just before its end event; those of
    fewer epochs are ignored, since the optimizer's state is missing.

    Raises:
        UserError: If the checkpoint belongs to another plan.
    """
    try:
        checkpoint = load_checkpoint(folder / CHECKPOINT, plan_hash=plan_hash)
        if checkpoint is None:
            checkpoint = load_weights(folder / WEIGHTS, plan_hash=plan_hash)
            if checkpoint is not None and checkpoint.progress.epoch < epochs:
                return None, None
    except UnreadableCheckpointError as error:
        return None, f"{error}; the trial starts over"
    return checkpoint, None


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, progress: Progress, *, plan_hash: str
) -> None:
    """Write the state of a trial; a reader sees either the previous checkpoint or this one.

    Raises:
        RunError: If it cannot be written, e.g. on a full disk; the previous checkpoint stays.
    """
    tensors = {f"{_MODEL}{name}": _cpu_copy(tensor) for name, tensor in _state(model).items()}
    for index, values in optimizer.state_dict()["state"].items():
        moments = {key: value for key, value in values.items() if isinstance(value, Tensor)}
        tensors.update({f"{_OPTIMIZER}{index}/{key}": _cpu_copy(value) for key, value in moments.items()})
    tensors.update({f"{_SUMS}{name}": _cpu_copy(tensor) for name, tensor in progress.sums.items()})
    _save(path, tensors, progress, plan_hash)


def load_checkpoint(path: Path, *, plan_hash: str) -> Checkpoint | None:
    """Return the checkpoint of a trial, or None if there is none.

    Raises:
        UserError: If it was written under another plan.
        UnreadableCheckpointError: If the file is damaged.
    """
    if not path.exists():
        return None
    tensors, progress = _load(path, plan_hash=plan_hash)
    progress.sums = _with_prefix(_SUMS, tensors)
    return Checkpoint(progress, _with_prefix(_MODEL, tensors), moments=_with_prefix(_OPTIMIZER, tensors))


def save_weights(path: Path, model: nn.Module, *, epoch: int, step: int, plan_hash: str) -> None:
    """Write parameters and buffers under their own names, readable by any safetensors reader.

    Raises:
        RunError: If the file cannot be written.
    """
    weights = {name: _cpu_copy(tensor) for name, tensor in _state(model).items()}
    _save(path, weights, Progress(epoch, step), plan_hash)


def load_weights(path: Path, *, plan_hash: str) -> Checkpoint | None:
    """Return final weights as a checkpoint without moments, or None if there are none.

    Raises:
        UserError: If they were trained under another plan.
        UnreadableCheckpointError: If the file is damaged.
    """
    if not path.exists():
        return None
    tensors, progress = _load(path, plan_hash=plan_hash)
    return Checkpoint(progress, tensors, moments={})


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers themselves, tied ones under their first name."""
    first: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            first.setdefault(id(tensor), (name, tensor))
    return dict(first.values())


def _cpu_copy(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU that shares no memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _in_layout(moment: Tensor, *, like: Tensor) -> Tensor:
    """Return an optimizer's tensor in its parameter's memory format, as fused optimizers require."""
    if moment.shape != like.shape:
        return moment
    return torch.empty_like(like, dtype=moment.dtype, requires_grad=False).copy_(moment)


@torch.no_grad()
def _copy_into(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    targets = _state(model)
    expected = {(name, tuple(tensor.shape)) for name, tensor in targets.items()}
    found = {(name, tuple(tensor.shape)) for name, tensor in state.items()}
    if expected != found:
        names = ", ".join(sorted({name for name, _ in expected ^ found})[:5])
        raise RunError(f"the checkpoint does not fit the model: {names} differ", code="MIM-T030")
    for name, tensor in state.items():
        targets[name].copy_(tensor)


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _save(path: Path, tensors: dict[str, Tensor], progress: Progress, plan_hash: str) -> None:
    metadata = {
        "epoch": progress.epoch,
        "step": progress.step,
        "elapsed_s": progress.elapsed_s,
        "plan": plan_hash,
        "digest": _digest(tensors),
    }
    header = {_HEADER: json.dumps(metadata)}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path}: the file cannot be written ({error}): free disk space or choose another folder",
            code="MIM-T031",
        ) from error


def _load(path: Path, *, plan_hash: str) -> tuple[dict[str, Tensor], Progress]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: JsonObject = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UnreadableCheckpointError(
            f"{path}: the checkpoint cannot be read ({error})", code="MIM-T032"
        ) from error
    if not isinstance(metadata, dict) or {"plan", "epoch", "step", "digest"} - set(metadata):
        raise UnreadableCheckpointError(f"{path}: not the checkpoint of a trial", code="MIM-T033")
    if metadata["plan"] != plan_hash:
        raise UserError(
            f"{path}: this checkpoint belongs to another plan ({metadata['plan'][:12]}, not "
            f"{plan_hash[:12]}): the recipe has changed; resume with the recipe stored beside it, or start "
            "a new study",
            code="MIM-T034",
        )
    if metadata["digest"] != _digest(tensors):
        raise UnreadableCheckpointError(
            f"{path}: the checkpoint is damaged: digest mismatch", code="MIM-T035"
        )
    return tensors, Progress(metadata["epoch"], metadata["step"], metadata.get("elapsed_s", 0.0))
