"""ConvRFM and Deep ConvRFM: what is learned, the published switches, and random convolutions."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from mimetic.data.dataset import Dataset
from mimetic.errors import UserError
from mimetic.kernels.config import Cntk, ConvRfm, DeepConvRfm
from mimetic.kernels.convrfm import architecture_of, convrfm, deep_convrfm, learned, random_filters
from mimetic.kernels.problem import Problem, make_problem

ResolvedInit = Callable[..., Tensor]


def gram(draw: ResolvedInit, size: int = 8) -> Tensor:
    """Return a positive matrix."""
    root = draw((size, size), 31, 1.0)
    return root @ root.T


def test_square_roots_and_powers(draw: ResolvedInit) -> None:
    """Power ½: F = G^½ and M = G; power 1: F = G and M = G²; each of Frobenius norm 1."""
    matrix = gram(draw)
    half, whole = learned(matrix, power=0.5), learned(matrix, power=1.0)

    assert torch.allclose(matrix / matrix.norm(), half[1])
    assert torch.allclose(matrix / matrix.norm(), whole[0])
    assert torch.allclose(matrix @ matrix / (matrix @ matrix).norm(), whole[1])
    assert torch.allclose(half[0] @ half[0] / (half[0] @ half[0]).norm(), half[1])


def test_thresholds_zero_the_lowest_eigenvalues(draw: ResolvedInit) -> None:
    """The published 75 % leave a quarter of the directions in F; M, for later filters, has them all."""
    matrix = gram(draw)
    factor, found = learned(matrix, power=0.5, threshold=0.75)

    assert int(torch.linalg.matrix_rank(factor)) == 2
    torch.testing.assert_close(found, matrix / matrix.norm())
    with pytest.raises(ValidationError, match="as published"):
        ConvRfm(threshold=0.75, power=1.0)


def test_a_gradient_of_zero_teaches_nothing() -> None:
    """Nothing is divided by a norm of zero."""
    assert torch.equal(torch.zeros(4, 4).double(), learned(torch.zeros(4, 4).double(), power=0.5)[0])


def test_rounds_begin_with_the_fixed_kernel(given: Problem) -> None:
    """Round 0 has learned nothing; the kernel then changes from round to round."""
    rounds = list(convrfm(ConvRfm(depth=2, rounds=2, ridge=(1e-3,)), given))

    assert [done.number for done in rounds] == [0, 1, 2]
    assert rounds[0].covariances == (None,)
    assert len({done.metrics["test/loss"] for done in rounds}) == 3
    for done in rounds[1:]:
        assert done.covariances[0] is not None
        assert float(done.covariances[0].norm()) == pytest.approx(1.0)


def test_compat_takes_gradients_with_the_last_ridge(given: Problem) -> None:
    """The paper's code does so whichever ridge is best; where there is one ridge it changes nothing."""

    def matrix(*, compat: bool, ridge: tuple[float, ...]) -> Tensor:
        found = list(convrfm(ConvRfm(depth=1, rounds=1, compat=compat, ridge=ridge), given))[1].covariances[0]
        assert found is not None
        return found

    last = matrix(compat=True, ridge=(1e-6, 1e2))
    assert torch.allclose(matrix(compat=False, ridge=(1e2,)), last)
    assert not torch.allclose(matrix(compat=False, ridge=(1e2, 1e-6)), last)


def test_levels_of_deep_convrfm(given: Problem) -> None:
    """Each level begins with a plain kernel, one convolution shallower, and keeps what others learned."""
    spec = DeepConvRfm(depth=2, rounds=1, width=4, ridge=(1e-3,), select="last")
    rounds = list(deep_convrfm(spec, given))
    again = list(deep_convrfm(spec, replace(given, seed=1)))

    assert [len(done.covariances) for done in rounds] == [1, 1, 2, 2]
    assert [done.covariances[-1] is None for done in rounds] == [True, False, True, False]
    last = rounds[3].covariances[1]
    assert last is not None
    assert last.shape == (36, 36)
    assert rounds[2].covariances[0] is rounds[1].covariances[0]
    assert rounds[1].metrics["test/loss"] == again[1].metrics["test/loss"]
    assert rounds[2].metrics["test/loss"] != again[2].metrics["test/loss"]  # the filters are the seed's


def test_random_filters_have_the_learned_covariance(draw: ResolvedInit) -> None:
    """Rows are N(0, M), or N(0, M/tr M); without an M they lie within ±1/√D as PyTorch's own do."""
    matrix = gram(draw, 9)
    spec = DeepConvRfm(width=20000)
    drawn = random_filters(spec, matrix, channels=1, seed=0, level=0).flatten(1)
    scaled = random_filters(
        spec.model_copy(update={"unit_trace": True}), matrix, channels=1, seed=0, level=0
    ).flatten(1)
    plain = random_filters(spec, None, channels=1, seed=0, level=0)

    assert torch.allclose(matrix, drawn.T @ drawn / 20000, atol=4.0 * float(matrix.max()) / 20000**0.5)
    assert torch.allclose(drawn, scaled * matrix.trace().sqrt())
    assert float(plain.abs().max()) <= 1.0 / 3.0
    assert float(plain.var()) == pytest.approx(1.0 / 27.0, rel=0.02)


def test_images_too_small_are_refused(given: Problem) -> None:
    """The message says what would fit."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-K030"):
        architecture_of(Cntk(depth=3), given)
    assert architecture_of(Cntk(depth=3, padding=True), given).depth == 3


def test_images_are_drawn_by_the_seed(dataset: Dataset) -> None:
    """The same seed draws the same images; inputs are read as the section says."""
    settings = {"device": torch.device("cpu"), "dtype": torch.float64}
    one, same, other = (
        make_problem(Cntk(images=8), dataset, seed=seed, **settings)
        for seed in (0, 0, 1)  # type: ignore[arg-type]
    )
    pixels = dataset.train.pixels_NCHW[:3]
    standard = make_problem(Cntk(inputs="standardized"), dataset, seed=0, **settings)  # type: ignore[arg-type]
    unit = make_problem(Cntk(inputs="unit"), dataset, seed=0, **settings)  # type: ignore[arg-type]

    assert torch.equal(one.train.pixels_NCHW, same.train.pixels_NCHW)
    assert not torch.equal(one.train.pixels_NCHW, other.train.pixels_NCHW)
    assert torch.allclose((pixels.double() / 255.0 - 0.5) / 0.25, standard.features(pixels))
    assert torch.allclose(functional.normalize(pixels.flatten(1).double()), unit.features(pixels).flatten(1))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-K021"):
        make_problem(Cntk(images=25), dataset, seed=0, **settings)  # type: ignore[arg-type]


def test_choices_need_images_held_out(dataset: Dataset) -> None:
    """Without a validation split several ridges are refused, one ridge is not."""
    bare = Dataset(*(getattr(dataset, name) if name != "val" else None for name in Dataset.__slots__))
    settings = {"seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-K020"):
        make_problem(Cntk(), bare, **settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-K020"):
        make_problem(ConvRfm(ridge=(1e-3,)), bare, **settings)  # type: ignore[arg-type]
    assert make_problem(ConvRfm(ridge=(1e-3,), select="last"), bare, **settings).val is None  # type: ignore[arg-type]
