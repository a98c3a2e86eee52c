"""Kernel ridge regression on one-hot labels, with the ridge selected on validation images.

All ridges are fitted; the selection uses images that are neither trained nor tested on (the published code
selected the best on the test set).

Shapes: N training images, K outputs, R ridges.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.data.dataset import Images
from mimetic.errors import RunError
from mimetic.kernels.problem import Problem

KernelRows = Callable[[Images], Iterable[Tensor]]
"""Yields the kernel of a split with the training images in blocks of rows, float64 on the CPU."""


class Score(NamedTuple):
    """Squared error to the one-hot label, summed over outputs, mean over images; share of correct images."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Predictors and the scores of the selected one.

    Attributes:
        alpha_RNK: Coefficients by ridge, for the kernel divided by its largest entry.
        index: Index of the selected ridge.
        metrics: Loss and accuracy of every split, and the ridge.
    """

    alpha_RNK: Tensor
    index: int
    metrics: dict[str, float]


def fit_and_score(kernel_NN: Tensor, problem: Problem, rows: KernelRows, ridges: Sequence[float]) -> Fitted:
    """Fit every ridge, select one on validation images and score all splits.

    Args:
        kernel_NN: Kernel of the training images.
        problem: Images and labels.
        rows: Kernel of other images with the training images.
        ridges: Ridges, relative to the kernel's largest entry.
    """
    largest = float(kernel_NN.max())
    scale = 1.0 / largest if largest > 0.0 else 1.0
    scaled_NN = kernel_NN * scale
    alpha_RNK = fit(scaled_NN, one_hot(problem.train.labels_N, problem.classes), ridges)
    scores = {"train": [score(answers_NK, problem.train.labels_N) for answers_NK in scaled_NN @ alpha_RNK]}
    for name, split in problem.evaluation_splits().items():
        answers_RNK = torch.cat([(block_MN * scale) @ alpha_RNK for block_MN in rows(split)], dim=1)
        scores[name] = [score(answers_NK, split.labels_N) for answers_NK in answers_RNK]
    index = best(scores["val"]) if len(ridges) > 1 else 0
    metrics: dict[str, float] = {}
    for split_name, of_ridge in scores.items():
        metrics |= {f"{split_name}/loss": of_ridge[index].loss, f"{split_name}/acc": of_ridge[index].accuracy}
    return Fitted(alpha_RNK, index, {**metrics, "ridge": ridges[index]})


def fit(kernel_NN: Tensor, targets_NK: Tensor, ridges: Sequence[float]) -> Tensor:
    """Return α = (K + λI)⁻¹Y for each ridge λ, (R, N, K).

    Args:
        kernel_NN: Kernel of the training images, symmetric, float64; unchanged.
        targets_NK: Targets of the training images.
        ridges: The ridges.

    Raises:
        RunError: If the kernel contains non-finite values.
    """
    if not bool(torch.isfinite(kernel_NN).all()):
        raise RunError(
            "the kernel contains NaN or infinity; check the images, or set `precision: fp64`",
            code="MIM-K010",
        )
    fitted = []
    for ridge in ridges:
        shifted_NN = kernel_NN.clone()
        shifted_NN.diagonal().add_(ridge)
        lower_NN, failed = torch.linalg.cholesky_ex(shifted_NN)
        if int(failed):  # rounding made the smallest eigenvalues negative
            fitted.append(torch.linalg.solve(shifted_NN, targets_NK))
        else:
            fitted.append(torch.cholesky_solve(targets_NK, lower_NN))
    return torch.stack(fitted)


def one_hot(labels_N: Tensor, classes: int) -> Tensor:
    """Return one-hot labels (N, K), float64."""
    return functional.one_hot(labels_N, classes).double()


def score(answers_NK: Tensor, labels_N: Tensor) -> Score:
    """Return how well predictions fit labels."""
    targets_NK = one_hot(labels_N, answers_NK.shape[1])
    loss = (answers_NK - targets_NK).square().sum(dim=1).mean()
    return Score(float(loss), float((answers_NK.argmax(dim=1) == labels_N).double().mean()))


def best(scores: Sequence[Score]) -> int:
    """Return the index of the highest accuracy; among equals the lowest loss, then the first."""
    return min(range(len(scores)), key=lambda i: (-scores[i].accuracy, scores[i].loss, i))
