"""The default initialization of a model, layer by layer, from streams keyed by the layers' names.

A layer's default distribution is its `reset_parameters`. That method takes no generator, so it runs under a
seeded global stream; and because a draw depends on memory format, dtype and device, it runs on a contiguous
float32 copy of the layer on the CPU, whose values are then copied. The same layer under the same name gets
the same bits in any model, on any device, at any time, also by a rule with `init: default`.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mimetic.ambient import fixed_settings
from mimetic.errors import UserError
from mimetic.graph.computed import without_parametrization
from mimetic.graph.names import walk
from mimetic.graph.own import own_buffers, own_children, own_parameters
from mimetic.streams import keyed_global_rng
from mimetic.threads import one_thread


def reset_keyed(model: nn.Module, seed: int) -> nn.Module:
    """Re-initialize a model in place: every parameter and buffer, by its layer's own `reset_parameters`.

    Parameters train again (`requires_grad`), buffers such as batch-norm statistics are reset. A tensor that
    several layers share is drawn by the first. Layers are keyed by canonical name, see `draw_default`.

    Args:
        model: A model all of whose tensors belong to layers with `reset_parameters`; on any real device,
            in any memory format and dtype.
        seed: Seed of the run.

    Returns:
        The model itself.

    Raises:
        UserError: If a layer owns tensors but cannot reset them, or leaves one of them unset.
    """
    reset_layers(((name, layer) for _, name, layer in walk(model)), seed)
    return model


def reset_layers(layers: Iterable[tuple[str, nn.Module]], seed: int) -> None:
    """Re-initialize layers in place, each under its canonical name in the network; see `reset_keyed`.

    Args:
        layers: Canonical names and layers. Only a layer's own tensors are drawn, not those of its children.
        seed: Seed of the run.
    """
    written: set[int] = set()
    for name, layer in layers:
        tensors = {local: t for local, t in _own_tensors(layer).items() if id(t) not in written}
        drawn = draw_default(layer, seed=seed, name=name, wanted=tensors) if tensors else {}
        for local, values in drawn.items():
            _write(tensors[local], values)
            written.add(id(tensors[local]))


@fixed_settings()
@one_thread()
def draw_default(
    layer: nn.Module, *, seed: int, name: str, wanted: Iterable[str], buffers: bool = False
) -> dict[str, Tensor]:
    """Return new values of tensors that a layer owns, as its `reset_parameters` draws them.

    The stream has the key (seed, "default", name). The layer, its children and the global stream are left as
    they are; the layer may be on any device, the meta device included.

    Args:
        layer: The layer. `nn.MultiheadAttention`, with a private `_reset_parameters`, will do as well.
        seed: Seed of the run.
        name: Canonical name of the layer.
        wanted: Local names of the tensors.
        buffers: Whether to return the buffers as well that the method sets, such as running statistics.

    Returns:
        Contiguous tensors on the CPU by local name, floating-point ones in float32.

    Raises:
        UserError: If the layer cannot be reset, or leaves one of the tensors unset.
    """
    # 1. A copy on the CPU whose entries are marked as unset.
    copied = _blank_copy(layer, _unset)
    reset = _reset_method(copied)
    if reset is None:
        raise UserError(
            f"{name}: a {type(layer).__name__} has no `reset_parameters`, so no default initialization; "
            "use `init: keep`, or another `init` by name",
            code="MIM-M101",
        )
    # 2. The method draws from the global stream, which is keyed meanwhile.
    with keyed_global_rng(seed, "default", name), torch.no_grad():
        reset()
    # 3. A mark that is left shows what the method does not set.
    tensors = _own_tensors(copied)
    for local in wanted:
        if not _is_set(tensors[local]):
            raise UserError(
                f"{name}: `reset_parameters` of {type(layer).__name__} does not set all of `{local}`; "
                "use `init: keep` for it, or another `init` by name",
                code="MIM-M102",
            )
    candidates = [n for n in own_buffers(copied) if buffers and n in tensors]
    found = [n for n in candidates if tensors[n].dtype != torch.bool and _is_set(tensors[n])]
    return {local: tensors[local].detach().contiguous() for local in (*wanted, *found)}


def _reset_method(layer: nn.Module) -> Callable[[], object] | None:
    methods = (getattr(layer, name, None) for name in ("reset_parameters", "_reset_parameters"))
    return next((method for method in methods if callable(method)), None)


def _own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    own = {**own_parameters(layer), **own_buffers(layer)}  # named_* would drop what is shared
    return {local: tensor for local, tensor in own.items() if tensor is not None}


def _blank_copy(layer: nn.Module, blank: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a copy of a layer with new tensors, and with new empty tensors in its children.

    What the layer computes (weight norm, a parametrization) is a parameter of the copy.
    """
    copied = without_parametrization(layer)
    vars(copied).update(
        _parameters={
            local: None if tensor is None else nn.Parameter(blank(tensor), requires_grad=False)
            for local, tensor in own_parameters(copied).items()
        },
        _buffers={
            local: None if tensor is None else blank(tensor) for local, tensor in own_buffers(layer).items()
        },
        _modules={
            local: None if child is None else _blank_copy(child, _empty)
            for local, child in own_children(copied).items()
        },
    )
    return copied


def _unset(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape on the CPU, with a mark where values that are never set are found."""
    blank = _empty(tensor)
    return blank.fill_(_mark(blank.dtype))


def _is_set(tensor: Tensor) -> bool:
    """Return whether all entries of a copy have been set; those of booleans always count as set."""
    mark = _mark(tensor.dtype)
    unset = tensor.isnan() if math.isnan(mark) else tensor == mark
    return tensor.dtype == torch.bool or not bool(unset.any())


def _mark(dtype: torch.dtype) -> float:
    if dtype == torch.bool:
        return 0
    return torch.nan if dtype.is_floating_point or dtype.is_complex else torch.iinfo(dtype).min


def _empty(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape on the CPU, of which no memory is touched."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="cpu")


@torch.no_grad()
def _write(tensor: Tensor, values: Tensor) -> None:
    tensor.copy_(values)
    if isinstance(tensor, nn.Parameter):
        tensor.requires_grad_(tensor.is_floating_point())
