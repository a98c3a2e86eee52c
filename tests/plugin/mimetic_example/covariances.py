"""A covariance over the pixels of a kernel that decays with their distance."""

import torch

from mimetic.covariance.context import Context
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic_example.config import Exponential


def exponential(spec: Exponential, site: Site, _context: Context) -> Covariance:
    """Σ_ij = exp(−|x_i − x_j| / length) over the pixels x of the layer's kernel; positive definite."""
    if site.geometry is None or not site.geometry.kernel_size:
        raise UserError(f"{site.layer}: `exponential` needs a convolution", code="EXAMPLE-001")
    kernel = site.geometry.kernel_size
    grids = torch.meshgrid(*(torch.arange(side).double() for side in kernel), indexing="ij")
    pixels_KD = torch.stack([grid.flatten() for grid in grids], dim=1)
    cov_KK = torch.exp(-torch.cdist(pixels_KD, pixels_KD) / spec.length)
    values_K, vectors_KK = torch.linalg.eigh(cov_KK)
    about = Provenance(
        "exponential",
        rank=len(values_K),
        smallest_eigenvalue=float(values_K[0]),
        largest_eigenvalue=float(values_K[-1]),
    )
    factor_KK = values_K.clamp(min=0.0).sqrt()[:, None] * vectors_KK.T
    return Covariance(factor_KK, PatchGeometry(1, kernel), about)
