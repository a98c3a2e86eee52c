"""From measured layers to the pictures of `mimetic ansatz`: which layers, which images, as plain arrays."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mimetic.analysis.ansatz import COLUMNS, depth_figure, eigenfilters_figure, saliency_figure
from mimetic.analysis.style import save_figure, spread
from mimetic.covariance.ansatz import LayerAnsatz
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.pictures import eigenfilters, eigenpatches, mappable, saliency_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray
    from torch import Tensor, nn

    from mimetic.data.dataset import Dataset

STRIPS, MAPS, IMAGES = 12, 3, 5
"""Most layers with eigen-filters, layers with maps, and images mapped."""

_COLORS = 3


def draw_figures(
    folder: Path,
    model: "nn.Module",
    series: Mapping[str, Sequence[LayerAnsatz]],
    dataset: "Dataset",
    images_NCHW: "Tensor",
    *,
    title: str,
) -> list[Path]:
    """Draw what there is to draw into a folder, each file in one step, and return the files."""
    layers = series["trained"]
    rhos = {name: {layer.site.layer: layer.agreement.rho for layer in of} for name, of in series.items()}
    drawn: dict[str, Callable[[], Figure | None]] = {
        "depth.png": lambda: depth_figure(rhos, title=title),
        "eigenfilters.png": lambda: eigenfilters_of(layers, title=title),
        "saliency.png": lambda: saliency_of(model, layers, dataset, images_NCHW, title=title),
    }
    return [folder / name for name, draw in drawn.items() if save_figure(folder / name, draw, dpi=130)]


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


def _filters(cov: Covariance) -> "ndarray":
    """Return leading eigenvectors: in colour where a layer sees colours, else of the mean over channels."""
    if cov.patch.channels == _COLORS:
        return eigenpatches(cov, COLUMNS).permute(0, 2, 3, 1).numpy()
    found = eigenfilters(cov, COLUMNS)
    assert found is not None
    return found.numpy()
