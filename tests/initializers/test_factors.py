"""Balanced factors are verified: correct ones pass in every dtype, wrong ones are found."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mimetic.errors import RunError
from mimetic.initializers import attention_maps
from mimetic.initializers.attention_maps import NearIdentity, balanced, is_best_product
from mimetic.streams import generator


def target(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Return noise plus identity."""
    return NearIdentity(0.7, 0.7, "uniform").sample(rows, columns, generator(seed))


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    rank=st.integers(1, 45),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 3),
)
def test_best_factors_pass(rows: int, columns: int, rank: int, dtype: torch.dtype, seed: int) -> None:
    """Of any shape and rank, rounded to any dtype."""
    whole = target(rows, columns, seed)
    left, right = (factor.to(dtype).double() for factor in balanced(whole, rank))

    assert is_best_product(whole, left, right, tolerance=16 * torch.finfo(dtype).eps)


def least(whole: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors of the smallest components."""
    left, values, right = torch.linalg.svd(whole)
    return left[:, -rank:] * values[-rank:].sqrt(), values[-rank:].sqrt()[:, None] * right[-rank:]


WRONG: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "too large": lambda a, r: (1.001 * balanced(a, r)[0], balanced(a, r)[1]),
    "transposed": lambda a, r: balanced(a.T.contiguous(), r),
    "sign": lambda a, r: (-balanced(a, r)[0], balanced(a, r)[1]),
    "shuffled": lambda a, r: (balanced(a, r)[0].roll(1, 1), balanced(a, r)[1]),
    "rows": lambda a, r: (balanced(a, r)[0].roll(1, 0), balanced(a, r)[1]),
    "least": least,
    "of another": lambda a, r: balanced(target(*a.shape, 1), r),
}


@pytest.mark.parametrize(
    ("mistake", "rank"),
    [*((mistake, 6) for mistake in WRONG), ("too large", 24), ("transposed", 24)],
)
def test_other_factors_do_not(mistake: str, rank: int) -> None:
    """Sizes, signs, order and orientation matter; so does which components they are."""
    whole = target(24, 24)
    left, right = (factor.float().double() for factor in WRONG[mistake](whole, rank))

    assert not is_best_product(whole, left, right)


def test_an_inaccurate_decomposition_fails_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors are verified before they are returned."""
    components = attention_maps._leading_components

    def inaccurate(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        left, values, right = components(matrix, rank)
        return left, 1.001 * values, right

    monkeypatch.setattr(attention_maps, "_leading_components", inaccurate)
    with pytest.raises(RunError) as raised:
        balanced(target(24, 24), 6)
    assert raised.value.code == "MIM-I021"
