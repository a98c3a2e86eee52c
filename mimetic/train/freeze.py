"""Frozen tensors keep their bytes: no gradient, fixed statistics, and a comparison at the end."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import torch
from torch import Tensor, nn

from mimetic.errors import RunError
from mimetic.graph.names import canonical_buffers, canonical_modules, canonical_parameters


def digest(tensor: Tensor) -> str:
    """Return a hash of a tensor's dtype, shape and values, independent of device and memory format."""
    values = tensor.detach().cpu().contiguous()
    value_hash = blake2b(f"{values.dtype} {tuple(values.shape)} ".encode(), digest_size=16)
    value_hash.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return value_hash.hexdigest()


def check_frozen(model: nn.Module, digests: Mapping[str, str]) -> None:
    """Compare frozen tensors with the digests taken before training.

    `digests` is canonical name of a parameter or buffer → its `digest` before training.

    Raises:
        RunError: If any of them changed or is missing; it names all of them.
    """
    tensors = {**canonical_buffers(model), **canonical_parameters(model)}
    changed = [n for n, before in digests.items() if n not in tensors or digest(tensors[n]) != before]
    if changed:
        raise RunError(
            f"frozen parameters changed during training: {', '.join(sorted(changed))}; something other than "
            "the optimizer writes to them (a custom layer or a tied tensor?)",
            code="MIM-T060",
        )


def freeze_norm_statistics(model: nn.Module, layers: Iterable[str]) -> None:
    """Put norm layers into evaluation mode, in which they use their running statistics unchanged.

    `model.train()` reverts it, so call this after each `model.train()`.
    """
    names = set(layers)
    if names:
        modules = canonical_modules(model)
        for name in names:
            modules[name].eval()
