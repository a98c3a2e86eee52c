"""One round of a kernel machine: fit with every ridge, choose one on validation images, score all splits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimetic.data.dataset import Images
from mimetic.kernels.config import Iterated, Learner
from mimetic.kernels.problem import Problem, metrics_of, scores_of
from mimetic.kernels.ridge import best, fit

Rows = Callable[[Images], Iterable[Tensor]]
"""Yields the kernel of a split with the training images in runs of its rows, float64 on the CPU."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What one round came to.

    Attributes:
        number: From 0, the kernel before features are learned.
        metrics: Loss and accuracy of every split, and the ridge that was chosen.
        covariances: What was learned when the round began, one matrix M (D, D) for each layer; the
            identity is None.
    """

    number: int
    metrics: Mapping[str, float]
    covariances: tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A predictor and how it does.

    Attributes:
        alpha_RNK: Coefficients by ridge, for the kernel divided by its largest entry.
        chosen: Which ridge counts.
        metrics: Loss and accuracy of every split, and the ridge.
    """

    alpha_RNK: Tensor
    chosen: int
    metrics: dict[str, float]


def fitted(kernel_NN: Tensor, given: Problem, rows: Rows, ridges: Sequence[float]) -> Fitted:
    """Fit, choose and score.

    Args:
        kernel_NN: The kernel of the training images.
        given: Images and labels.
        rows: The kernel of other images with the training images.
        ridges: Ridges, relative to the kernel's largest entry.
    """
    largest = float(kernel_NN.max())
    scale = 1.0 / largest if largest > 0.0 else 1.0
    scaled_NN = kernel_NN * scale
    alpha_RNK = fit(scaled_NN, given.targets, ridges)
    scores = {"train": scores_of(scaled_NN @ alpha_RNK, given.train.labels_N)}
    for name, split in given.held_out().items():
        parts = [(block_MN * scale) @ alpha_RNK for block_MN in rows(split)]
        scores[name] = scores_of(torch.cat(parts, dim=1), split.labels_N)
    chosen = best(scores["val"]) if len(ridges) > 1 else 0
    metrics = metrics_of({name: of_ridge[chosen] for name, of_ridge in scores.items()})
    return Fitted(alpha_RNK, chosen, {**metrics, "ridge": ridges[chosen]})


def selection(spec: Learner) -> str:
    """Return how the round that counts is chosen; a learner without rounds has only one."""
    return spec.select if isinstance(spec, Iterated) else "last"


def selected(rounds: Sequence[Round], select: str) -> Round:
    """Return the round that counts: the first of the most accurate on validation images, or the last."""
    if select == "last":
        return rounds[-1]
    return max(rounds, key=lambda found: (found.metrics["val/acc"], -found.number))
