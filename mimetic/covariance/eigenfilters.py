"""The directions in which filters vary most: leading eigenvectors, for pictures and tables."""

import torch
from torch import Tensor

from mimetic.covariance.covariance import Covariance
from mimetic.covariance.linalg import eigh, multiply, smaller_gram
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
    factor_RD = marginal(cov).factor_RD
    values, vectors = eigh(smaller_gram(factor_RD))
    kept = values.flip(0)[:count] > 1e-12 * max(float(values[-1]), 1e-300)
    leading = vectors.flip(1)[:, : len(kept)][:, kept].T
    if factor_RD.shape[0] <= factor_RD.shape[1]:
        leading = multiply(leading, factor_RD)
    filters_ND = torch.nn.functional.normalize(leading, dim=1)
    largest_N1 = filters_ND.abs().argmax(dim=1, keepdim=True)
    return (filters_ND * filters_ND.gather(1, largest_N1).sign()).view(-1, *kernel)
