"""`linear_combination`: a k×k convolution becomes C_out·E filters and a 1×1 convolution that combines them.

Gavrikov and Keuper, "The Power of Linear Combinations: Learning with Random Convolutions",
arXiv 2301.11360. The filters take over stride, padding and dilation; a bias moves to the 1×1 convolution.
`fold` is the inverse: a linear combination becomes the one convolution that it is equivalent to,

    W_eff[o, c, a, b] = Σ_e P[o, e] · W[e, c, a, b]

with the filters W of shape (C_out·E, C_in, k, k) and the 1×1 weights P of shape (C_out, C_out·E). Outputs
differ by rounding only: the product is computed in float64.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.graph.site import shape_text
from mimetic.models.linear_combination import LinearCombination
from mimetic.surgery import config
from mimetic.surgery.rewrite import Replacement, empty_like, spatial_conv

MAX_VALUES = 2**29
"""Largest number of values of one filter bank: 2 GiB in float32."""

_FILTERS = ".filters"


def linear_combination(
    spec: config.LinearCombination, layers: Sequence[str], modules: Mapping[str, nn.Module]
) -> list[Replacement]:
    """Replace convolutions by linear combinations of filters."""
    return [_combine(spec, layer, modules) for layer in layers]


def _combine(spec: config.LinearCombination, layer: str, modules: Mapping[str, nn.Module]) -> Replacement:
    conv = spatial_conv(layer, modules, by="linear_combination")
    num_filters = conv.out_channels * spec.expansion
    if conv.weight.numel() * spec.expansion > MAX_VALUES:
        raise UserError(
            f"`{layer}` would get {num_filters:,} filters, more than {MAX_VALUES:,} values; "
            "choose a smaller `expansion`",
            code="MIM-U020",
        )

    def make() -> LinearCombination:
        return LinearCombination(
            _conv_like(conv, num_filters, bias=False),
            conv.out_channels,
            bias=conv.bias is not None,
            norm=spec.norm,
            relu=spec.activation == "relu",
        )

    frozen = " frozen" if spec.freeze else ""
    parts = [f"{num_filters}{frozen} filters {shape_text(conv.kernel_size)}"]
    parts += ["norm"] * spec.norm + ["relu"] * (spec.activation == "relu") + [f"1×1 to {conv.out_channels}"]
    return Replacement(
        layer=layer,
        module=empty_like(make, conv),
        becomes=", ".join(parts),
        frozen=("filters.weight",) if spec.freeze else (),
    )


def fold(_spec: config.Fold, layers: Sequence[str], modules: Mapping[str, nn.Module]) -> list[Replacement]:
    """Replace linear combinations by equivalent convolutions."""
    return [_fold(layer, modules) for layer in layers]


def _fold(layer: str, modules: Mapping[str, nn.Module]) -> Replacement:
    name = layer.removesuffix(_FILTERS)
    combination = modules.get(name)
    if not layer.endswith(_FILTERS) or not isinstance(combination, LinearCombination):
        raise UserError(
            f"`{layer}` is not the filters of a linear combination of the model itself; match these, "
            "e.g. `layer: '.*\\.filters'` with a model such as cifar_resnet_lc",
            code="MIM-U021",
        )
    for between in (combination.norm, combination.activation):
        if not isinstance(between, nn.Identity):
            raise UserError(
                f"`{name}` cannot be folded: a {type(between).__name__} is between its two layers",
                code="MIM-U022",
            )
    conv = folded(combination)
    becomes = f"one convolution {shape_text(conv.kernel_size)}, {conv.in_channels}→{conv.out_channels}"
    return Replacement(layer=name, module=conv, becomes=becomes, fresh=False)


@torch.no_grad()
def folded(combination: LinearCombination) -> nn.Conv2d:
    """Return the convolution that is equivalent to a linear combination, on its device."""
    filters, combine = combination.filters, combination.combine
    bias = combine.bias is not None
    conv = empty_like(lambda: _conv_like(filters, combine.out_channels, bias=bias), filters)
    assert isinstance(conv, nn.Conv2d)
    if not conv.weight.is_meta:
        combine_OE = combine.weight.double().flatten(1)
        product_OIHW = torch.einsum("oe,eihw->oihw", combine_OE, filters.weight.double())
        conv.weight.copy_(product_OIHW)
        if conv.bias is not None and combine.bias is not None:
            conv.bias.copy_(combine.bias)
    return conv


def _conv_like(conv: nn.Conv2d, out_channels: int, *, bias: bool) -> nn.Conv2d:
    """Return a new convolution with the inputs, kernel, stride and padding of another."""
    return nn.Conv2d(
        conv.in_channels,
        out_channels,
        conv.kernel_size,  # type: ignore[arg-type] # torch annotates these as tuples of any length
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=conv.padding_mode,
    )
