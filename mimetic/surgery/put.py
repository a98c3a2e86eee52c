"""Put a new layer into the place of an old one, wherever the network holds it."""

from torch import nn

from mimetic.errors import UserError
from mimetic.graph.names import walk


def put(model: nn.Module, old: nn.Module, new: nn.Module, *, name: str) -> None:
    """Let every parent of a layer hold another one under the same key.

    Raises:
        UserError: If the layer is the whole network, so that nothing holds it.
    """
    parents = [
        (parent, key)
        for _, _, parent in walk(model)
        for key, child in parent._modules.items()  # noqa: SLF001 - named_children would drop what is shared
        if child is old
    ]
    if not parents:
        raise UserError(f"the layer `{name}` is the whole network; surgery needs one that holds it")
    for parent, key in parents:
        parent._modules[key] = new  # noqa: SLF001 - keeps the order of the children
