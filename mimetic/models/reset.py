"""The model's own initialization, layer by layer, from streams keyed by the layers' names.

A layer's law is its `reset_parameters`. It knows no generators, so it runs under a seeded global stream; and
because a draw depends on memory format, dtype and device, it runs on a fresh contiguous float32 twin of the
layer on the CPU, whose values are then copied. The same model built or reset anywhere, at any time, beside
any other layers, has the same bits.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mimetic.streams import keyed_global_rng

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Name segments put in front by DataParallel and DDP, torch.compile, FSDP and activation checkpointing."""


def reset_keyed(model: nn.Module, seed: int) -> nn.Module:
    """Re-initialize a model in place: every parameter and buffer, by its layer's own `reset_parameters`.

    The layer of canonical name n draws under the key (seed, "default", n). Parameters train again
    (`requires_grad`), buffers such as batch-norm statistics start anew. A tensor that several layers
    share is drawn by the first.

    Args:
        model: A model all of whose tensors belong to layers with `reset_parameters`; on any real device,
            in any memory format and dtype.
        seed: Seed of the run.

    Returns:
        The model itself.

    Raises:
        TypeError: If a layer owns tensors but cannot reset them, or leaves one of them unset.
    """
    reset_layers(model.named_modules(), seed)
    return model


def reset_layers(layers: Iterable[tuple[str, nn.Module]], seed: int) -> None:
    """Re-initialize layers in place, each under its name in the network; see `reset_keyed`.

    Args:
        layers: Names and layers. Only tensors a layer owns itself are drawn, so modules below it are
            layers of their own.
        seed: Seed of the run.
    """
    written: set[int] = set()
    for name, layer in layers:
        tensors = _own_tensors(layer)
        if tensors:
            drawn = _draw(layer, seed=seed, name=_canonical(name))
            for local, tensor in tensors.items():
                if id(tensor) not in written:
                    _write(tensor, drawn[local])
                    written.add(id(tensor))


def _own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    own = {**layer._parameters, **layer._buffers}  # noqa: SLF001 - named_* would drop what is shared
    return {local: tensor for local, tensor in own.items() if tensor is not None}


def _draw(layer: nn.Module, *, seed: int, name: str) -> dict[str, Tensor]:
    """Return new values of the layer's tensors: contiguous, on the CPU, floats in float32."""
    twin = copy.copy(layer)
    twin._parameters = {  # noqa: SLF001
        local: None if tensor is None else nn.Parameter(_unset(tensor), requires_grad=False)
        for local, tensor in layer._parameters.items()  # noqa: SLF001
    }
    twin._buffers = {  # noqa: SLF001
        local: None if tensor is None else _unset(tensor)
        for local, tensor in layer._buffers.items()  # noqa: SLF001
    }
    reset = getattr(twin, "reset_parameters", None)
    if reset is None:
        raise TypeError(f"layer `{name}` ({type(layer).__name__}) owns tensors but has no `reset_parameters`")
    with keyed_global_rng(seed, "default", name):
        reset()
    drawn = _own_tensors(twin)
    for local, values in drawn.items():
        if values.is_floating_point() and values.isnan().any():
            raise TypeError(f"`reset_parameters` of layer `{name}` does not set `{local}`")
    return drawn


def _unset(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape whose values, if they stay, are found out."""
    if tensor.is_floating_point():
        return torch.full(tensor.shape, torch.nan, dtype=torch.float32, device="cpu")
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")


@torch.no_grad()
def _write(tensor: Tensor, values: Tensor) -> None:
    tensor.copy_(values)
    if isinstance(tensor, nn.Parameter):
        tensor.requires_grad_(tensor.is_floating_point())


def _canonical(name: str) -> str:
    return ".".join(segment for segment in name.split(".") if segment not in _WRAPPERS)
