"""`fold`: a linear combination becomes the one convolution it amounts to.

    W_eff[o, c, a, b] = Σ_e P[o, e] · W[e, c, a, b]          (arXiv 2301.11360)

with the filters W of shape (C_out·E, C_in, k, k) and the 1×1 weights P of shape (C_out, C_out·E). Outputs
differ by rounding only: the product is taken in float64.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules
from mimetic.models.linear_combination import LinearCombination
from mimetic.surgery.config import Fold
from mimetic.surgery.put import put
from mimetic.surgery.replacement import Replacement, replacements, size, unset

_FILTERS = ".filters"


@replacements.register
def _(spec: Fold, layers: Sequence[str], modules: Mapping[str, nn.Module]) -> list[Replacement]:  # noqa: ARG001
    return [_folded(layer, modules) for layer in layers]


def fold_combinations(model: nn.Module) -> tuple[str, ...]:
    """Fold every linear combination of a network in place, e.g. after training, for inference.

    Args:
        model: A network on a real device.

    Returns:
        Canonical names of the layers that are one convolution now.

    Raises:
        UserError: If a norm or an activation stands between the two layers of one; nothing is changed then.
    """
    modules = canonical_modules(model)
    places: dict[LinearCombination, str] = {}  # a layer with several names is folded once
    for name, module in modules.items():
        if isinstance(module, LinearCombination):
            places.setdefault(module, name)
    made = [_folded(f"{name}{_FILTERS}", modules) for name in places.values()]
    for replacement in made:
        put(model, modules[replacement.layer], replacement.module, name=replacement.layer)
    return tuple(places.values())


def _folded(layer: str, modules: Mapping[str, nn.Module]) -> Replacement:
    name = layer.removesuffix(_FILTERS)
    combination = modules.get(name)
    if not layer.endswith(_FILTERS) or not isinstance(combination, LinearCombination):
        message = f"`{layer}` is not the filters of a linear combination of the model itself; match these, "
        raise UserError(f"{message}e.g. `layer: '.*\\.filters'` with a model such as cifar_resnet_lc")
    for between in (combination.norm, combination.activation):
        if not isinstance(between, nn.Identity):
            message = f"`{name}` cannot be folded: a {type(between).__name__} stands between its two layers"
            raise UserError(message)
    conv = folded(combination)
    becomes = f"one convolution {size(conv)}, {conv.in_channels}→{conv.out_channels}"
    return Replacement(layer=name, module=conv, becomes=becomes, fresh=False)


@torch.no_grad()
def folded(combination: LinearCombination) -> nn.Conv2d:
    """Return the convolution a linear combination amounts to, on its device."""
    filters, combine = combination.filters, combination.combine

    def make() -> nn.Module:
        return nn.Conv2d(
            filters.in_channels,
            combine.out_channels,
            filters.kernel_size,  # type: ignore[arg-type] # two sides, as torch's own attribute does not say
            filters.stride,  # type: ignore[arg-type]
            filters.padding,  # type: ignore[arg-type]
            filters.dilation,  # type: ignore[arg-type]
            bias=combine.bias is not None,
            padding_mode=filters.padding_mode,
        )

    conv = unset(make, filters)
    assert isinstance(conv, nn.Conv2d)
    if not conv.weight.is_meta:
        combine_OE = combine.weight.double().flatten(1)
        product_OIHW = torch.einsum("oe,eihw->oihw", combine_OE, filters.weight.double())
        conv.weight.copy_(product_OIHW)
        if conv.bias is not None and combine.bias is not None:
            conv.bias.copy_(combine.bias)
    return conv
