"""Closed-form covariances of spatial filters taken from models of receptive fields.

Both describe one input channel's filter and need neither data nor training.

Shapes: K one side of the kernel, D all pixels of the kernel in row-major order, F filters.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ive

from mimetic.covariance.components import spatial_geometry
from mimetic.covariance.config import V1, ScaleSpace, V1Fit
from mimetic.covariance.context import Context
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.linalg import symmetric_root
from mimetic.errors import UserError
from mimetic.graph.site import Site, shape_text

MASTER_FILTERS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "A": (
        (0.580, 0.559, 0.617, 0.642, 1.075, 0.771, 0.675, 0.552),
        (0.558, 0.580, 0.601, 0.424, 0.800, 1.003, 0.675, 0.545),
    ),
    "B": (
        (0.644, 0.586, 0.690, 0.756, 1.107, 0.900, 0.675, 0.609),
        (0.583, 0.644, 0.674, 0.460, 0.945, 0.889, 0.675, 0.601),
    ),
    "C2": ((0.458, 0.448, 0.671, 0.420, 1.387, 1.090, 0.654, 0.611),) * 2,
    "D2": ((0.644, 0.558, 0.495, 0.380, 1.193, 1.038, 0.675, 0.612),) * 2,
}
"""Scales σ_x and σ_y of the eight master filters by variant, from tonylindeberg/masterfiltmodel@e170f53."""

_JITTER = 1e-5
_ROUNDING = 1e-12
_SMALLEST = 3


def scale_space_of_layer(spec: ScaleSpace, site: Site, _context: Context) -> Covariance:
    """Return the second moment of the eight master filters for a layer's kernel."""
    kernel = spatial_geometry(site, "scale_space").kernel_size
    if len(kernel) != 2 or min(kernel) < _SMALLEST or not all(side % 2 for side in kernel):  # noqa: PLR2004
        raise UserError(
            f"{site.layer}: the covariance `scale_space` describes kernels with two odd sides of 3 and more, "
            f"and this one is {shape_text(kernel)}; match other layers, or use `closed_form`",
            code="MIM-V008",
        )
    filters_FD = master_filters((kernel[0], kernel[1]), spec.variant).flatten(1)
    about = Provenance("scale_space", rank=len(filters_FD))
    return Covariance(filters_FD / math.sqrt(len(filters_FD)), PatchGeometry(1, kernel), about)


def v1_of_layer(spec: V1, site: Site, _context: Context) -> Covariance:
    """Return the covariance of random receptive fields for a layer's kernel."""
    kernel = spatial_geometry(site, "v1").kernel_size
    matrix_DD = v1_matrix(kernel, size=spec.size, smoothness=spec.smoothness)
    root_DD, values_D = symmetric_root(matrix_DD, psd="clip")
    about = Provenance(
        "v1",
        rank=int((values_D > _ROUNDING * values_D[-1]).sum()),
        smallest_eigenvalue=float(values_D[0]),
        largest_eigenvalue=float(values_D[-1]),
    )
    return Covariance(root_DD, PatchGeometry(1, kernel), about)


@lru_cache(maxsize=256)
def master_filters(kernel_size: tuple[int, int], variant: str = "B") -> torch.Tensor:
    """Return the eight master key filters (8, rows, columns) in float64, each of Frobenius norm 1.

    T = T₁(σ_y) ⊗ T₁(σ_x) with the discrete Gaussian T₁(n; σ) = e^(−σ²)·I_|n|(σ²), normalized to sum 1. In
    order: δ_y⁺T, δ_x⁻T, δ_y⁻T, δ_x⁺T (forward and backward differences), δ_x T, δ_y T (central), T − ½∇²T
    and T. arXiv 2509.12746; variants and values as in tonylindeberg/masterfiltmodel@e170f53.
    """
    pairs = zip(*MASTER_FILTERS[variant], strict=True)
    filters = [_master_filter(index, kernel_size, scales) for index, scales in enumerate(pairs)]
    return torch.from_numpy(np.stack([found / np.linalg.norm(found) for found in filters]))


def _master_filter(
    index: int, kernel_size: tuple[int, int], scales: tuple[float, float]
) -> NDArray[np.float64]:
    rows, columns = kernel_size
    smooth = np.outer(_discrete_gaussian(rows, scales[1]), _discrete_gaussian(columns, scales[0]))
    # The pixel without a neighbor on that side gets no difference.
    if index in {0, 2}:
        return np.pad(np.diff(smooth, axis=0), ((index // 2, 1 - index // 2), (0, 0)))
    if index in {1, 3}:
        return np.pad(np.diff(smooth, axis=1), ((0, 0), (1 - index // 2, index // 2)))
    if index in {4, 5}:
        return np.asarray(np.gradient(smooth, axis=5 - index))
    return smooth - 0.5 * _laplacian(smooth) if index == 6 else smooth  # noqa: PLR2004


def _laplacian(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the five-point Laplacian, zero on the border."""
    inner, laplacian = image[1:-1, 1:-1], np.zeros_like(image)
    around = image[2:, 1:-1] + image[:-2, 1:-1] + image[1:-1, 2:] + image[1:-1, :-2]
    laplacian[1:-1, 1:-1] = around - 4.0 * inner
    return laplacian


def _discrete_gaussian(side: int, sigma: float) -> NDArray[np.float64]:
    values = ive(np.abs(np.arange(side) - side // 2), sigma * sigma)
    return np.asarray(values / values.sum(), dtype=np.float64)


def v1_matrix(kernel_size: tuple[int, ...], *, size: float, smoothness: float) -> torch.Tensor:
    """Return the covariance (d, d) of random receptive fields in float64, its trace the number of pixels.

    C(x, y) = exp(−‖x−y‖²/2f²)·exp(−‖x−m‖²/2s²)·exp(−‖y−m‖²/2s²) + 10⁻⁵·[x = y] with m the middle pixel: a
    stationary Gaussian process of correlation length f under a Gaussian window of width s. Pandey et al.,
    "Structured random receptive fields enable informative sensory encodings" (2022); constants as in
    `V1_covariance.py` of the fact-conv repository.
    """
    axes = [torch.arange(side, dtype=torch.float64) - side // 2 for side in kernel_size]
    place_DN = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    squared_DD = (place_DN[:, None] - place_DN[None, :]).square().sum(-1)
    window_D = torch.exp(-place_DN.square().sum(-1) / (2.0 * size * size))
    smooth_DD = torch.exp(-squared_DD / (2.0 * smoothness * smoothness))
    matrix_DD = smooth_DD * window_D[:, None] * window_D[None, :]
    matrix_DD.diagonal().add_(_JITTER)
    return matrix_DD * (len(matrix_DD) / matrix_DD.trace())


def v1_fit_matrix(_spec: V1Fit, kernel_size: tuple[int, ...], size: float, smoothness: float) -> torch.Tensor:
    """Return the matrix for a fit; it is positive definite."""
    return v1_matrix(kernel_size, size=size, smoothness=smoothness)
