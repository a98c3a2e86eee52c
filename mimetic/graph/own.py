"""What a module owns itself, in torch's own dictionaries: the one place that reads these private attributes.

`named_parameters(recurse=False)` and the like drop entries that are None or shared. These dictionaries list
them all, in order of registration; assigning to one sets the entry past any parametrization. TorchScript has
something less than a dictionary, of which a copy is returned.
"""

from collections.abc import Mapping

from torch import Tensor, nn


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the parameters of the module itself by local name."""
    own = module._parameters  # noqa: SLF001
    return own if isinstance(own, dict) else dict(own.items())


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the buffers of the module itself by local name."""
    own = module._buffers  # noqa: SLF001
    return own if isinstance(own, dict) else dict(own.items())


def own_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the direct children of the module by local name."""
    own = module._modules  # noqa: SLF001
    return own if isinstance(own, dict) else dict(own.items())


def own_pre_hooks(module: nn.Module) -> tuple[object, ...]:
    """Return what runs before the module's forward, in order."""
    hooks: Mapping[int, object] = vars(module).get("_forward_pre_hooks", {})
    return tuple(hooks.values())
