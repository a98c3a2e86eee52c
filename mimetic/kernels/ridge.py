"""Kernel ridge regression on one-hot labels, with the ridge chosen on validation images.

Several ridges are fitted at once; which of them counts is decided by what they do on images held out of
training, never on test images (the published code took the best on the test set).

Shapes: N training images, K outputs, R ridges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.errors import RunError


@dataclass(frozen=True, slots=True)
class Score:
    """How predictions fit a split.

    Attributes:
        loss: Mean over images of the squared error to the one-hot label, summed over outputs.
        accuracy: Share of images classified right.
    """

    loss: float
    accuracy: float


def fit(kernel_NN: Tensor, targets_NK: Tensor, ridges: Sequence[float]) -> Tensor:
    """Return α = (K + λI)⁻¹Y for each ridge λ, (R, N, K).

    Args:
        kernel_NN: The kernel of the training images, symmetric, float64; unchanged.
        targets_NK: What the predictor should say of them.
        ridges: The ridges.

    Raises:
        RunError: If the kernel holds values that are not finite.
    """
    if not bool(torch.isfinite(kernel_NN).all()):
        raise RunError("the kernel holds NaN or infinity; check the images, or set `precision: fp64`")
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
    """Return labels as rows of zeros with a one, float64."""
    return functional.one_hot(labels_N, classes).double()


def score(answers_NK: Tensor, labels_N: Tensor) -> Score:
    """Return how predictions fit labels."""
    targets_NK = one_hot(labels_N, answers_NK.shape[1])
    loss = (answers_NK - targets_NK).square().sum(dim=1).mean()
    return Score(float(loss), float((answers_NK.argmax(dim=1) == labels_N).double().mean()))


def best(scores: Sequence[Score]) -> int:
    """Return the index of the highest accuracy; of equal ones the lowest loss, then the first."""
    return min(range(len(scores)), key=lambda i: (-scores[i].accuracy, scores[i].loss, i))
