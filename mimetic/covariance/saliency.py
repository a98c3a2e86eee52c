"""What a covariance over patches sees in an image: √(pᵀΣp) at each position (arXiv 2309.00570).

With the NFM or the AGOP of a trained network's first layers these are maps of edges: what the network's
filters respond to, and what its outputs depend on. p is the patch of the layer's input at a position, and
pᵀΣp = ‖F·p‖² for the factor F, so a map is one convolution with the factor's rows as filters.

Shapes: N images, C channels, H×W positions, R rows of a factor.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.covariance.ansatz import LayerAnsatz
from mimetic.covariance.capture import capture, run_forward
from mimetic.covariance.covariance import Covariance
from mimetic.graph.names import canonical_modules


def mappable(layer: LayerAnsatz) -> bool:
    """Tell whether a layer has maps: a convolution over pixels, of all channels together."""
    geometry = layer.site.geometry
    return (
        geometry is not None
        and len(geometry.kernel_size) == 2  # noqa: PLR2004
        and max(geometry.kernel_size) > 1
        and geometry.groups == 1
    )


@torch.no_grad()
def saliency_maps(
    model: nn.Module, layers: Sequence[LayerAnsatz], images_NCHW: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the maps (N, H, W) of NFM and AGOP at each layer, by its name.

    Args:
        model: The network they were measured on; unchanged.
        layers: Layers that are `mappable`.
        images_NCHW: A few images, on the model's device.
    """
    modules = canonical_modules(model)
    inputs: dict[str, Tensor] = {}

    def note(name: str, seen: Tensor, _output: None) -> None:
        inputs.setdefault(name, seen.detach().clone())

    with capture({layer.site.layer: modules[layer.site.layer] for layer in layers}, note, before=True):
        run_forward(model, images_NCHW, origin="the network")
    return {
        layer.site.layer: (
            _map(layer.features, inputs[layer.site.layer], modules[layer.site.layer]),
            _map(layer.gradients, inputs[layer.site.layer], modules[layer.site.layer]),
        )
        for layer in layers
    }


def _map(cov: Covariance, input_NCHW: Tensor, convolution: Any) -> Tensor:
    filters_RCHW = cov.factor_RD.view(-1, cov.patch.channels, *cov.patch.kernel_size).to(input_NCHW)
    seen_NRHW = functional.conv2d(
        input_NCHW,
        filters_RCHW,
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
    )
    return seen_NRHW.square().sum(dim=1).sqrt().double().cpu()
