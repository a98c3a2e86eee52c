"""`shared_filters`: convolutions share one tensor of filters, each at its own scale.

Gavrikov and Keuper, "Rethinking 1×1 Convolutions", arXiv 2301.11360 version 1. The tensor has
values from U[−1, 1]; layer l uses s_l·W with s_l = 1/sqrt(C_in·k²), the standard deviation of its default
initialization (App. B of version 2). Which part a smaller layer uses is not published; here it is the
leading block.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.errors import UserError
from mimetic.graph.site import shape_text
from mimetic.surgery import config
from mimetic.surgery.rewrite import Replacement, spatial_conv


class SharedFilters(nn.Module):
    """A convolution whose filters are the leading block of a tensor shared with other layers.

    Attributes:
        bank: The shared tensor (O, I, k, k), as large as the largest layer needs.
        scale: Factor on the filters, 1/sqrt(C_in·k²).
    """

    def __init__(self, conv: nn.Conv2d, bank: nn.Parameter) -> None:
        super().__init__()
        self.bank = bank
        self.bias = None if conv.bias is None else nn.Parameter(torch.empty_like(conv.bias))
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation = conv.padding, conv.dilation
        self.scale = conv.weight[0].numel() ** -0.5

    def reset_parameters(self) -> None:
        """Draw the bank from U[−1, 1] and the bias from the default distribution of a convolution."""
        nn.init.uniform_(self.bank, -1.0, 1.0)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -self.scale, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution's outputs (N, C_out, H', W')."""
        weight_OIHW = self.bank[: self.out_channels, : self.in_channels] * self.scale
        return functional.conv2d(x, weight_OIHW, self.bias, self.stride, self.padding, self.dilation)


def shared_filters(
    spec: config.SharedFilters, layers: Sequence[str], modules: Mapping[str, nn.Module]
) -> list[Replacement]:
    """Replace convolutions by ones that share their filters."""
    convs = {layer: spatial_conv(layer, modules, by="shared_filters", zeros=True) for layer in layers}
    sizes = {conv.kernel_size: layer for layer, conv in convs.items()}
    if len(sizes) > 1:
        first_two = list(sizes.items())[:2]
        kernels = " and ".join(f"{shape_text(size)} (`{layer}`)" for size, layer in first_two)
        raise UserError(
            f"one tensor cannot contain kernels of {kernels}; "
            "write one rewrite per size, e.g. with `kernel_size: 3` in `match`",
            code="MIM-U030",
        )
    first = next(iter(convs.values()))
    shape_OIHW = (
        max(conv.out_channels for conv in convs.values()),
        max(conv.in_channels for conv in convs.values()),
        *first.kernel_size,
    )
    bank = nn.Parameter(torch.empty(shape_OIHW, dtype=first.weight.dtype, device=first.weight.device))
    filters = (
        f"{shape_OIHW[0]} shared{' frozen' if spec.freeze else ''} filters {shape_text(first.kernel_size)}"
    )
    return [
        Replacement(
            layer=layer,
            module=SharedFilters(conv, bank).train(conv.training),
            becomes=f"{conv.out_channels} of {filters}",
            frozen=("bank",) if spec.freeze else (),
        )
        for layer, conv in convs.items()
    ]
