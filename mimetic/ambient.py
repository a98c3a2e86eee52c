"""torch's ambient settings, set to fixed values where values are planned, drawn, built or measured.

A caller may have set a default device or dtype, autocast, a gradient mode, or a lower precision of float32
products. Code that creates a tensor or multiplies matrices would follow these settings, and initial values
would depend on them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICE_TYPES = ("cpu", "cuda")
_PRODUCTS = ("matmul", "conv")


@contextmanager
def fixed_settings(dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Compute inside the block as a new process does, and restore the settings afterwards.

    Tensors are created on the CPU, gradients are on, inference mode and autocast are off, and float32
    products on the CPU have full precision. What is set already is not touched: the block costs microseconds.

    Args:
        dtype: The default dtype inside the block.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device_type in _DEVICE_TYPES:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_dtype() != dtype:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(dtype)
        for products in (getattr(torch.backends.mkldnn, name) for name in _PRODUCTS):
            if products.fp32_precision not in {"none", "ieee"}:
                stack.callback(setattr, products, "fp32_precision", products.fp32_precision)
                products.fp32_precision = "ieee"
        yield
