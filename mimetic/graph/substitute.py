"""Temporarily replace the tensors of a live model by shapes.

`torch.func.functional_call` swaps parameters and buffers only; a forward may also set attributes, fill caches
and call hooks. So each module gets a copy of its attributes (containers copied one level deep), and its
original attributes back at the end. `copy.deepcopy` with a memo of shapes would be shorter, but copies
everything that a module refers to (data sets, locks, process groups) and fails on computed weights.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_MAX_COPIED = 16
"""Buffers up to this size are copied with values: forwards branch on counters and flags."""
_BOOKKEEPING = frozenset(
    {
        *_HOOKS,
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks_with_kwargs",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
    }
)
"""torch's own attributes that a forward does not change."""
_INERT = frozenset({int, float, bool, str, type(None)})
"""Types of immutable attributes without tensors."""


@contextmanager
def without_values(
    model: nn.Module, on_call: Callable[[nn.Module], None], *, training: bool
) -> Iterator[dict[int, int]]:
    """Replace the tensors of a model by shapes on the meta device inside the block.

    The user's hooks are disabled, except those of `torch.nn.utils`, which compute weights.

    Args:
        model: The model; restored afterwards, including the identity of its containers.
        on_call: Called with each module before its forward.
        training: The training mode of all modules inside the block.

    Yields:
        The id of the live tensor by the id of its substitute.
    """
    modules = list(model.modules())
    saved = [(module, module.__dict__.copy()) for module in modules]
    hooks: OrderedDict[int, object] = OrderedDict({-1: lambda module, _: on_call(module)})
    substitute = _Substitutes()
    try:
        for module in modules:
            _replace(module, substitute, hooks, training=training)
        yield substitute.live
    finally:
        for module, attributes in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)


def _replace(
    module: nn.Module, substitute: "_Substitutes", hooks: OrderedDict[int, object], *, training: bool
) -> None:
    own = module.__dict__
    for name, value in own.items():
        if type(value) not in _INERT and name not in _BOOKKEEPING:
            own[name] = substitute(value)
    own["training"] = training
    if "_compiled_call_impl" in own:
        own["_compiled_call_impl"] = None
    own["_forward_pre_hooks"] = _with_weight_hooks(hooks, own["_forward_pre_hooks"])
    for name in _HOOKS[1:]:
        if own[name]:
            own[name] = OrderedDict()


def _with_weight_hooks(
    hooks: OrderedDict[int, object], own: OrderedDict[int, object]
) -> OrderedDict[int, object]:
    weight_hooks = {key: hook for key, hook in own.items() if _computes_weights(hook)} if own else {}
    return OrderedDict({**hooks, **weight_hooks}) if weight_hooks else hooks


def _computes_weights(hook: object) -> bool:
    """Return whether a hook computes weights: weight or spectral normalization, or pruning."""
    makers = (type(hook).__module__, getattr(hook, "__module__", ""))
    return any(str(maker).startswith("torch.nn.utils") for maker in makers)


class _Substitutes:
    """One substitute without values per tensor, also inside plain containers."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self._made: dict[int, tuple[object, object]] = {}  # includes the original, so that no id is reused

    def __call__(self, value: Any) -> Any:
        """Return the substitute of a tensor, a copied container, or the value itself."""
        known = self._made.get(id(value))
        if known is not None:
            return known[1]
        made = value
        if isinstance(value, Tensor):
            made = _shape_of(value)
            self.live[id(made)] = self.live[id(value)] = id(value)
        elif type(value) in {list, set}:
            made = type(value)(map(self._item, value))
        elif type(value) is tuple and not _INERT.issuperset(map(type, value)):
            made = tuple(map(self._item, value))
        elif type(value) in {dict, OrderedDict}:
            made = value.copy()
            for key, item in value.items():
                if isinstance(item, Tensor):
                    made[key] = self(item)
        if made is not value:
            self._made[id(value)] = (value, made)
        return made

    def _item(self, item: object) -> object:
        return self(item) if isinstance(item, Tensor) else item


def _shape_of(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape without values; a short buffer is copied with values."""
    if isinstance(tensor, nn.Parameter):
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    if type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.numel() <= _MAX_COPIED:
        return tensor.detach().clone()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
