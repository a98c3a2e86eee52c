"""Recursive feature machine (arXiv 2212.13881): a Laplace kernel whose metric is its predictor's AGOP.

    repeat:  α = (K_M + λI)⁻¹Y;   M ← AGOP of f(x) = Σ_j α_j K_M(x, x_j)

`centered` and `scaling: mean` reproduce the paper's code, `centered: false` and `scaling: max` the authors'
package.

Shapes: N points, D coordinates, K outputs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mimetic.covariance.harvest import Harvested
from mimetic.covariance.linalg import symmetric_root
from mimetic.data.dataset import Images
from mimetic.data.shapes import ImageShape
from mimetic.graph.site import Geometry
from mimetic.kernels.config import Rfm
from mimetic.kernels.laplace import BLOCK_ELEMENTS, laplace, laplace_agop
from mimetic.kernels.learn import LearnerPlan, Round
from mimetic.kernels.patches import tiles
from mimetic.kernels.problem import Problem
from mimetic.kernels.ridge import fit_and_score


def plan_rfm(spec: Rfm, shape: ImageShape) -> LearnerPlan:
    """Describe RFM over whole images, which gives one covariance."""
    size = shape.channels * shape.height * shape.width
    metric = "the diagonal of its AGOP" if spec.diagonal else "its AGOP"
    root = ", its square root" if spec.power != 1.0 else ""
    description = (
        f"Laplace kernel of length {spec.bandwidth:g} over {size} {spec.inputs} coordinates",
        f"{spec.rounds} rounds, its metric then {metric}{root}",
    )
    return LearnerPlan(description, (Harvested("images", "linear", 0.0, Geometry(size, size)),))


def rfm(spec: Rfm, problem: Problem) -> Iterator[Round]:
    """Yield the rounds of RFM over whole images, the plain Laplace kernel first."""

    def points(pixels_NCHW: Tensor) -> Tensor:
        return problem.features(pixels_NCHW).flatten(1)

    train_ND = points(problem.train.pixels_NCHW)
    metric_DD: Tensor | None = None

    def rows(split: Images) -> Iterator[Tensor]:
        for start, stop in tiles(len(split), max(1, BLOCK_ELEMENTS // len(train_ND))):
            part_MD = points(split.pixels_NCHW[start:stop])
            yield laplace(part_MD, train_ND, metric_DD, spec.bandwidth).cpu()

    for number in range(spec.rounds + 1):
        kernel_NN = laplace(train_ND, train_ND, metric_DD, spec.bandwidth).cpu()
        fitted = fit_and_score(kernel_NN, problem, rows, spec.ridge)
        yield Round(number, fitted.metrics, (None if metric_DD is None else metric_DD.cpu(),))
        if number < spec.rounds:
            alpha_NK = fitted.alpha_RNK[fitted.index].to(train_ND)
            metric_DD = next_metric(train_ND, alpha_NK, metric_DD, spec)


def next_metric(train_ND: Tensor, alpha_NK: Tensor, metric_DD: Tensor | None, spec: Rfm) -> Tensor:
    """Return the matrix M of the next round from the predictor of this one."""
    agop_DD = laplace_agop(train_ND, train_ND, alpha_NK, metric_DD, spec.bandwidth, centered=spec.centered)
    if spec.diagonal:
        agop_DD = torch.diag(agop_DD.diagonal())
    if spec.scaling == "max":
        agop_DD = agop_DD / agop_DD.max()
    if spec.power == 1.0:
        return agop_DD
    root_DD, _ = symmetric_root(agop_DD.cpu())
    return root_DD.to(agop_DD)
