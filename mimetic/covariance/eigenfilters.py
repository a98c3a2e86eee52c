"""The directions in which filters vary most: leading eigenvectors, for pictures and tables."""

import torch
from torch import Tensor

from mimetic.covariance.algebra import eigenvectors
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.transfer import marginal


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
    unit_ND = torch.nn.functional.normalize(vectors_ND, dim=1)
    largest_N1 = unit_ND.abs().argmax(dim=1, keepdim=True)
    return unit_ND * unit_ND.gather(1, largest_N1).sign()
