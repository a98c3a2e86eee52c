"""Observe the layers of a network during one forward."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mimetic.errors import UserError
from mimetic.graph.site import shape_text

Capture = Callable[[str, Tensor, Any], Any]
"""`f(name, input, output)`, called at every call of a layer."""


@contextmanager
def capture(layers: Mapping[str, nn.Module], note: Capture, *, before: bool = False) -> Iterator[None]:
    """Call a function at every call of some layers inside the block.

    Args:
        layers: The layers by name.
        note: `f(name, input, output)`; what it returns, if not None, replaces the output (the input,
            `before`).
        before: Whether it is called before the layer runs; its output is None then.
    """
    with ExitStack() as stack:
        for name, module in layers.items():
            if before:
                hook = module.register_forward_pre_hook(lambda _m, given, n=name: note(n, given[0], None))
            else:
                hook = module.register_forward_hook(lambda _m, given, out, n=name: note(n, given[0], out))
            stack.callback(hook.remove)
        yield


def run_forward(model: nn.Module, images_NCHW: Tensor, *, origin: str) -> Any:
    """Return a model's output in eval mode, without gradients.

    Raises:
        UserError: If the forward fails on such images.
    """
    with torch.no_grad(), eval_mode(model):
        try:
            return model(images_NCHW)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"{origin}: the network does not take images of {shape_text(images_NCHW.shape[1:])}: "
                f"{error}; give the data it was trained on, at its size",
                code="MIM-V030",
            ) from error


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode inside the block, and restore every module's mode afterwards."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
