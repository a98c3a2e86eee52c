"""Ridges and rounds: chosen on validation images and never on test images."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mimetic.data.dataset import Images
from mimetic.errors import RunError
from mimetic.kernels.config import Rfm
from mimetic.kernels.learn import Round, selected
from mimetic.kernels.problem import Problem
from mimetic.kernels.ridge import Score, best, fit, fit_and_score, one_hot, score


def points(images: Images) -> Tensor:
    """Return images as rows."""
    return images.pixels_NCHW.flatten(1).double() / 255.0


def linear(given: Problem, split: Images) -> Tensor:
    """Return a linear kernel with the training images."""
    return points(split) @ points(given.train).T


def test_each_ridge_solves_its_equation(given: Problem) -> None:
    """(K + λI)·α = Y for every λ."""
    kernel = linear(given, given.train)
    targets = one_hot(given.train.labels_N, given.classes)
    for ridge, alpha in zip((1e-3, 1.0), fit(kernel, targets, (1e-3, 1.0)), strict=True):
        shifted = kernel + ridge * torch.eye(len(kernel), dtype=torch.float64)
        assert torch.allclose(targets, shifted @ alpha, atol=1e-9)


def test_a_kernel_that_rounding_made_indefinite_is_still_solved() -> None:
    """A tiny negative eigenvalue does not end a trial; NaN does, and says what to try."""
    kernel = torch.tensor([[1.0, 0.0], [0.0, -1e-7]], dtype=torch.float64)
    targets = torch.eye(2, dtype=torch.float64)
    (alpha,) = fit(kernel, targets, (1e-8,))

    assert torch.allclose(targets, (kernel + 1e-8 * torch.eye(2)) @ alpha)
    with pytest.raises(RunError, check=lambda error: error.code == "MIM-K010"):
        fit(kernel * torch.nan, targets, (1e-8,))


def test_scores() -> None:
    """The loss sums squared errors over classes and takes the mean over images."""
    answers = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)

    assert score(answers, torch.tensor([0, 1])) == Score(loss=1.25, accuracy=0.5)
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_best_is_the_most_accurate_then_the_one_of_lower_loss() -> None:
    """Equal ones: the first."""
    assert best([Score(1.0, 0.5), Score(0.5, 0.4), Score(0.9, 0.5), Score(0.9, 0.5)]) == 2


def test_ridges_are_chosen_without_test_labels(given: Problem) -> None:
    """Labels of test images change test metrics and nothing else."""

    def rows(split: Images) -> Iterator[Tensor]:
        yield linear(given, split)

    ridges = (1e-6, 1e-2, 1e2)
    one = fit_and_score(linear(given, given.train), given, rows, ridges)
    turned = replace(given, test=Images(given.test.pixels_NCHW, (given.test.labels_N + 1) % 3))
    other = fit_and_score(linear(given, given.train), turned, rows, ridges)
    validation = [
        score(linear(given, given.val) / float(linear(given, given.train).max()) @ alpha, given.val.labels_N)
        for alpha in one.alpha_RNK
    ]  # type: ignore[union-attr, arg-type]

    assert one.metrics["test/acc"] != other.metrics["test/acc"]
    assert one.metrics["ridge"] == other.metrics["ridge"] == ridges[one.index]
    assert one.metrics["val/acc"] == max(known.accuracy for known in validation)


def test_the_round_that_counts() -> None:
    """The first of the most accurate on validation images, or the last, whatever test images say."""
    rounds = [
        Round(number, {"val/acc": known, "test/acc": 1.0 - known}, ())
        for number, known in enumerate((0.2, 0.6, 0.6, 0.5))
    ]

    assert selected(Rfm(select="validation"), rounds).number == 1
    assert selected(Rfm(select="last"), rounds).number == 3
