"""Recursive feature machine (arXiv 2212.13881): a Laplace kernel whose metric is its predictor's AGOP.

    repeat:  α = (K_M + λI)⁻¹Y;   M ← AGOP of f(x) = Σ_j α_j K_M(x, x_j)

`centered` and `scaling: mean` are those of the paper's code, `centered: false` and `scaling: max` those of
the authors' package.

Shapes: N points, D coordinates, K outputs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mimetic.covariance.linalg import symmetric_root
from mimetic.data.dataset import Images
from mimetic.kernels.config import Rfm
from mimetic.kernels.laplace import RUN_ELEMENTS, laplace, laplace_agop
from mimetic.kernels.patches import tiles
from mimetic.kernels.problem import Problem
from mimetic.kernels.rounds import Round, fitted


def rfm(spec: Rfm, given: Problem) -> Iterator[Round]:
    """Yield the rounds of RFM over whole images, the plain Laplace kernel first."""

    def points(pixels_NCHW: Tensor) -> Tensor:
        return given.features(pixels_NCHW).flatten(1)

    train_ND = points(given.train.pixels_NCHW)
    metric_DD: Tensor | None = None

    def rows(split: Images) -> Iterator[Tensor]:
        for start, stop in tiles(len(split), max(1, RUN_ELEMENTS // len(train_ND))):
            part_MD = points(split.pixels_NCHW[start:stop])
            yield laplace(part_MD, train_ND, metric_DD, spec.bandwidth).cpu()

    for number in range(spec.rounds + 1):
        kernel_NN = laplace(train_ND, train_ND, metric_DD, spec.bandwidth).cpu()
        found = fitted(kernel_NN, given, rows, spec.ridge)
        yield Round(number, found.metrics, (None if metric_DD is None else metric_DD.cpu(),))
        if number < spec.rounds:
            alpha_NK = found.alpha_RNK[found.chosen].to(train_ND)
            metric_DD = next_metric(train_ND, alpha_NK, metric_DD, spec)


def next_metric(train_ND: Tensor, alpha_NK: Tensor, metric_DD: Tensor | None, spec: Rfm) -> Tensor:
    """Return the M of the next round from the predictor of this one."""
    agop_DD = laplace_agop(train_ND, train_ND, alpha_NK, metric_DD, spec.bandwidth, centered=spec.centered)
    if spec.diagonal:
        agop_DD = torch.diag(agop_DD.diagonal())
    if spec.scaling == "max":
        agop_DD = agop_DD / agop_DD.max()
    if spec.power == 1.0:
        return agop_DD
    root_DD, _ = symmetric_root(agop_DD.cpu())
    return root_DD.to(agop_DD)
