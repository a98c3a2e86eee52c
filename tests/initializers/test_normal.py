"""The normal distribution and its truncation: torch's values, entry for entry, and its use of the stream."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from mimetic.initializers.normal import normal_, trunc_normal_

Fill = Callable[[Tensor, Generator], object]


def filled(count: int, fill: Fill) -> tuple[Tensor, Tensor]:
    """Return values as they are stored, and what the stream gives afterwards."""
    stream = Generator().manual_seed(7)
    tensor = torch.full((count,), torch.nan, dtype=torch.float64)
    fill(tensor, stream)
    return tensor.float(), torch.rand(1, generator=stream)


def check(count: int, ours: Fill, theirs: Fill) -> None:
    """Hold two ways of filling a tensor against each other."""
    for found, expected in zip(filled(count, ours), filled(count, theirs), strict=True):
        assert torch.equal(expected, found)


@given(count=st.integers(0, 200), mean=st.sampled_from([0.0, 1.5]), std=st.sampled_from([0.02, 0.3]))
def test_normal_values_are_those_of_torch(count: int, mean: float, std: float) -> None:
    """Whatever the length: below sixteen, a multiple of it, and with a rest."""
    check(
        count,
        lambda t, stream: normal_(t, mean, std, generator=stream),
        lambda t, stream: t.normal_(mean, std, generator=stream),
    )


@pytest.mark.parametrize("count", [65536, 65537])
def test_long_tensors_too(count: int) -> None:
    """A piece as long as they come."""
    check(
        count,
        lambda t, stream: normal_(t, 0.0, 0.02, generator=stream),
        lambda t, stream: t.normal_(0.0, 0.02, generator=stream),
    )


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(-2.0, 2.0), (-0.04, 0.04), (-0.01, 0.06), (0.0, 0.002)],
    ids=["far", "two std", "lopsided", "rare"],
)
@pytest.mark.parametrize("count", [7, 500])
def test_truncated_values_are_those_of_torch(count: int, lower: float, upper: float) -> None:
    """Rejected by bounds where most values are within them, by height where few are."""
    check(
        count,
        lambda t, stream: trunc_normal_(t, 0.0, 0.02, lower=lower, upper=upper, generator=stream),
        lambda t, stream: nn.init.trunc_normal_(t, 0.0, 0.02, lower, upper, generator=stream),
    )
