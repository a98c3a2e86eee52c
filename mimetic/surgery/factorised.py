"""`factorised`: frozen Gaussian filters with learned triangular factors for channels and pixels.

    W_eff[o, c', t'] = Σ_{c,t} W[o, c, t] · U1[c, c'] · U2[t, t']

White et al., Re-Align 2024 (their `FactConv2d`): the filters of a unit have the covariance
(U1ᵀU1) ⊗ (U2ᵀU2), so only the covariance is learned. U1 (C_in × C_in) and U2 (k² × k²) are upper triangular
with exp(parameter) on the diagonal; all parameters are initially zero, U = I.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.graph.site import shape_text
from mimetic.surgery.config import Factorised
from mimetic.surgery.rewrite import Replacement, empty_like, spatial_conv


class FactorisedConv2d(nn.Module):
    """A convolution with random filters W whose channel and spatial covariances are learned.

    Attributes:
        weight: The filters W (O, I, k, k); Gaussian, kaiming normal.
        channels: The triangle U1, row by row: I·(I+1)/2 numbers.
        pixels: The triangle U2, row by row: k²·(k²+1)/2 numbers.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride, self.groups = conv.kernel_size, conv.stride, 1
        self.padding, self.dilation = conv.padding, conv.dilation
        self.weight = nn.Parameter(torch.empty(conv.weight.shape))
        self.channels = nn.Parameter(torch.empty(_entries(conv.in_channels)))
        self.pixels = nn.Parameter(torch.empty(_entries(math.prod(conv.kernel_size))))
        self.bias = None if conv.bias is None else nn.Parameter(torch.empty(conv.out_channels))

    def reset_parameters(self) -> None:
        """Draw the filters and set both factors to the identity."""
        nn.init.kaiming_normal_(self.weight)
        nn.init.zeros_(self.channels)
        nn.init.zeros_(self.pixels)
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def effective_weight(self) -> Tensor:
        """Return W_eff (O, I, k, k)."""
        channels_CC = triangle(self.channels, self.in_channels)
        pixels_TT = triangle(self.pixels, math.prod(self.kernel_size))
        weight_OCT = torch.einsum("oct,cd->odt", self.weight.flatten(2), channels_CC) @ pixels_TT
        return weight_OCT.view(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution's outputs (N, C_out, H', W')."""
        return functional.conv2d(
            x,
            self.effective_weight(),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
        )


def triangle(entries: Tensor, side: int) -> Tensor:
    """Return the upper triangular matrix of packed rows, its diagonal exponentiated."""
    rows, columns = torch.triu_indices(side, side, device=entries.device)
    upper = entries.new_zeros(side, side).index_put((rows, columns), entries)
    return upper.triu(1) + upper.diagonal().exp().diag()


def _entries(side: int) -> int:
    return side * (side + 1) // 2


def factorised(
    spec: Factorised, layers: Sequence[str], modules: Mapping[str, nn.Module]
) -> list[Replacement]:
    """Replace convolutions by factorised ones."""
    return [_factorise(spec, layer, modules) for layer in layers]


def _factorise(spec: Factorised, layer: str, modules: Mapping[str, nn.Module]) -> Replacement:
    conv = spatial_conv(layer, modules, by="factorised", zeros=True)
    frozen = " frozen" if spec.freeze else ""
    return Replacement(
        layer=layer,
        module=empty_like(lambda: FactorisedConv2d(conv), conv),
        becomes=f"{conv.out_channels}{frozen} filters {shape_text(conv.kernel_size)} with triangular factors",
        frozen=("weight",) if spec.freeze else (),
    )
