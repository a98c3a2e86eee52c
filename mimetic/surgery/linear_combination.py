"""`linear_combination`: a k×k convolution becomes C_out·E filters and a 1×1 convolution that combines them.

Gavrikov and Keuper, "The Power of Linear Combinations: Learning with Random Convolutions",
arXiv 2301.11360. The filters take over stride, padding and dilation; a bias moves to the 1×1 convolution.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from mimetic.errors import UserError
from mimetic.models.linear_combination import LinearCombination
from mimetic.surgery.config import LinearCombination as Component
from mimetic.surgery.replacement import Replacement, replacements, size, spatial_conv, unset

MAX_VALUES = 2**29
"""Most values of one bank of filters: 2 GiB in float32."""


@replacements.register
def _(spec: Component, layers: Sequence[str], modules: Mapping[str, nn.Module]) -> list[Replacement]:
    return [_combination(spec, layer, modules) for layer in layers]


def _combination(spec: Component, layer: str, modules: Mapping[str, nn.Module]) -> Replacement:
    conv = spatial_conv(layer, modules, does="linear_combination replaces")
    filters = conv.out_channels * spec.expansion
    if conv.weight.numel() * spec.expansion > MAX_VALUES:
        message = f"`{layer}` would get {filters:,} filters, more than {MAX_VALUES:,} values; "
        raise UserError(f"{message}choose a smaller `expansion`")
    between = [word for word, there in (("norm", spec.norm), ("relu", spec.activation == "relu")) if there]
    frozen = " frozen" if spec.freeze else ""
    return Replacement(
        layer=layer,
        module=unset(lambda: combination_of(conv, spec), conv),
        becomes=", ".join(
            [f"{filters}{frozen} filters {size(conv)}", *between, f"1×1 to {conv.out_channels}"]
        ),
        frozen=("filters.weight",) if spec.freeze else (),
    )


def combination_of(conv: nn.Conv2d, spec: Component) -> LinearCombination:
    """Return the linear combination that takes the place of a convolution, with new weights."""
    filters = nn.Conv2d(
        conv.in_channels,
        conv.out_channels * spec.expansion,
        conv.kernel_size,  # type: ignore[arg-type] # two sides, as torch's own attribute does not say
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=False,
        padding_mode=conv.padding_mode,
    )
    relu = spec.activation == "relu"
    return LinearCombination(
        filters, conv.out_channels, bias=conv.bias is not None, norm=spec.norm, relu=relu
    )
