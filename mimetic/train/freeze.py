"""What a plan freezes stays as it was: no gradient, fixed statistics, and the bytes compared at the end."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import torch
from torch import Tensor, nn

from mimetic.errors import RunError
from mimetic.graph.names import canonical_buffers, canonical_modules, canonical_parameters


def digest(tensor: Tensor) -> str:
    """Return a hash of a tensor's dtype, shape and values, the same for every device and memory format."""
    values = tensor.detach().cpu().contiguous()
    found = blake2b(f"{values.dtype} {tuple(values.shape)} ".encode(), digest_size=16)
    found.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_frozen(model: nn.Module, digests: Mapping[str, str]) -> None:
    """Compare frozen tensors with the digests taken when they were frozen.

    Args:
        model: The trained model.
        digests: Canonical name of a parameter or buffer → its `digest` before training.

    Raises:
        RunError: If one of them changed or is gone; all of them are named.
    """
    tensors = _tensors(model)
    moved = [name for name, was in digests.items() if name not in tensors or digest(tensors[name]) != was]
    if moved:
        raise RunError(
            f"frozen parameters changed during training: {', '.join(sorted(moved))}; "
            "something outside the optimizer writes to them (a custom layer or a tied tensor?)"
        )


def hold_statistics(model: nn.Module, layers: Iterable[str]) -> None:
    """Put norm layers into evaluation mode: they use their running statistics and do not move them.

    `model.train()` undoes it, so call it after each. Replaces no module and changes no momentum.

    Args:
        model: The model.
        layers: Canonical names of its norm layers.
    """
    names = set(layers)
    if names:
        modules = canonical_modules(model)
        for name in names:
            modules[name].eval()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    named = {**canonical_buffers(model), **canonical_parameters(model)}
    return {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}
