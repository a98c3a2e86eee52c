"""From measured layers to the pictures of `mimetic ansatz`: which layers, which images, as plain arrays."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mimetic.analysis.ansatz import COLUMNS, eigenfilters_figure, saliency_figure
from mimetic.covariance.ansatz import LayerAnsatz
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.eigenfilters import eigenfilters, eigenpatches
from mimetic.covariance.saliency import mappable, saliency_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from mimetic.data.dataset import Dataset

STRIPS, MAPS, IMAGES = 12, 3, 5
"""Most layers with eigen-filters, layers with maps, and images mapped."""

_COLORS = 3

T = TypeVar("T")


def eigenfilters_of(layers: Sequence[LayerAnsatz], *, title: str) -> "Figure | None":
    """Draw the leading eigen-filters of layers that have a kernel, evenly over depth; None without."""
    found = {
        layer.site.layer: (_filters(layer.features), _filters(layer.gradients))
        for layer in layers
        if eigenfilters(layer.features, 1) is not None
    }
    names = spread(list(found), STRIPS)
    title = f"{title}: leading eigenvectors"
    return eigenfilters_figure({name: found[name] for name in names}, title=title) if names else None


def saliency_of(
    model: "nn.Module",
    layers: Sequence[LayerAnsatz],
    dataset: "Dataset",
    images_NCHW: "Tensor",
    *,
    title: str,
) -> "Figure | None":
    """Draw where NFM and AGOP of some layers look in the first images; None where no layer has maps."""
    chosen = spread([layer for layer in layers if mappable(layer)], MAPS)
    if not chosen:
        return None
    device = next(model.parameters()).device
    maps = saliency_maps(model, chosen, images_NCHW[:IMAGES].to(device))
    arrays = {name: (nfm.numpy(), agop.numpy()) for name, (nfm, agop) in maps.items()}
    pixels_NHWC = dataset.pixels(IMAGES).permute(0, 2, 3, 1).double() / 255.0
    pictures = [picture.squeeze(-1).numpy() for picture in pixels_NHWC]
    return saliency_figure(pictures, arrays, title=f"{title}: √(pᵀΣp) of patches")


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _filters(cov: Covariance) -> Any:
    """Return leading eigenvectors: in colour where a layer sees colours, else of the mean over channels."""
    if cov.patch.channels == _COLORS:
        return eigenpatches(cov, COLUMNS).permute(0, 2, 3, 1).numpy()
    found = eigenfilters(cov, COLUMNS)
    assert found is not None
    return found.numpy()
