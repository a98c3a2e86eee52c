"""Mosaics: every picture at its place, gaps between them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimetic.analysis.mosaic import mosaic, spatial_filters, symmetric_limit


def test_a_mosaic_by_hand() -> None:
    """Three pictures of 1×2 in two columns."""
    pictures = np.arange(6.0).reshape(3, 1, 2)

    laid = mosaic(pictures, columns=2)

    nan = np.nan
    expected = [[0, 1, nan, 2, 3], [nan] * 5, [4, 5, nan, nan, nan]]
    np.testing.assert_array_equal(laid, expected)


@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
def test_a_mosaic_holds_every_value_once(count: int, height: int, width: int, columns: int) -> None:
    """Whatever the sizes, and nothing else but gaps."""
    pictures = np.arange(float(count * height * width)).reshape(count, height, width)

    laid = mosaic(pictures, columns=columns)

    assert sorted(laid[np.isfinite(laid)]) == list(range(count * height * width))


def test_filters_of_all_channels_are_taken() -> None:
    """Output channels first, then input channels."""
    weight = np.arange(24.0).reshape(2, 3, 2, 2)

    assert spatial_filters(weight).shape == (6, 2, 2)
    np.testing.assert_array_equal(spatial_filters(weight)[4], weight[1, 1])


@pytest.mark.parametrize("shape", [(3, 4), (0, 1, 3, 3)])
def test_weights_without_filters_are_refused(shape: tuple[int, ...]) -> None:
    """A linear layer has none."""
    with pytest.raises(ValueError, match="no spatial filters"):
        spatial_filters(np.zeros(shape))


def test_limits_are_symmetric_and_positive() -> None:
    """Zero is white also where all values are positive, or zero, or missing."""
    assert symmetric_limit(np.array([1.0, -3.0, np.nan]), quantile=1.0) == 3.0
    assert symmetric_limit(np.zeros(4)) == 1.0
    assert symmetric_limit(np.array([np.nan])) == 1.0
