"""Pictures of a covariance: its leading directions as filters, and what it sees in an image.

With the NFM or the AGOP of a trained network's first layers, √(pᵀΣp) at each position is a map of edges: what
the network's filters respond to, and what its outputs depend on (arXiv 2309.00570). p is the patch of the
layer's input at a position, and pᵀΣp = ‖F·p‖² for the factor F, so a map is one convolution with the factor's
rows as filters.

Shapes: N images or directions, C channels, H×W positions, R rows of a factor, D patch coordinates.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic.covariance.algebra import eigenvectors
from mimetic.covariance.ansatz import LayerAnsatz
from mimetic.covariance.capture import capture, run_forward
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.transfer import marginal
from mimetic.graph.names import canonical_modules


def eigenfilters(cov: Covariance, count: int) -> Tensor | None:
    """Return the leading eigenvectors of a spatial covariance as (N, H, W) filters of unit norm.

    Of a covariance with channels, those of its mean spatial one. The sign is fixed by making the largest
    entry positive; directions without variance are left out.

    Args:
        cov: Any covariance.
        count: Most filters wanted.

    Returns:
        The filters; None for kernels that are not two-dimensional or a single pixel.
    """
    kernel = cov.patch.kernel_size
    if len(kernel) != 2 or max(kernel) == 1:  # noqa: PLR2004
        return None
    _, vectors_ND = eigenvectors(marginal(cov))
    return _signed(vectors_ND[:count]).view(-1, *kernel)


def eigenpatches(cov: Covariance, count: int) -> Tensor:
    """Return the leading eigenvectors of Σ over whole patches as (N, channels, *kernel) of unit norm.

    Signs are fixed as in `eigenfilters`.
    """
    _, vectors_ND = eigenvectors(cov)
    return _signed(vectors_ND[:count]).view(-1, cov.patch.channels, *cov.patch.kernel_size)


def _signed(vectors_ND: Tensor) -> Tensor:
    """Return vectors of unit norm whose largest entry is positive."""
    unit_ND = functional.normalize(vectors_ND, dim=1)
    largest_N1 = unit_ND.abs().argmax(dim=1, keepdim=True)
    return unit_ND * unit_ND.gather(1, largest_N1).sign()


def mappable(layer: LayerAnsatz) -> bool:
    """Return whether a layer has maps: a convolution over pixels, of all channels together."""
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
