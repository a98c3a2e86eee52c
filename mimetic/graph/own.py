"""What a module owns itself, in torch's own dictionaries: the one place that reads these private attributes.

`named_parameters(recurse=False)` and the like drop entries that are None or shared. These dictionaries list
them all, in order of registration; assigning to one sets the entry past any parametrization.
"""

from torch import Tensor, nn


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the parameters of the module itself by local name."""
    return module._parameters  # noqa: SLF001


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the buffers of the module itself by local name."""
    return module._buffers  # noqa: SLF001


def own_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the direct children of the module by local name."""
    return module._modules  # noqa: SLF001
