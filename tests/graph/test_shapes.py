"""Shape rules agree with torch, and leave what they are unsure of to it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mimetic.graph.shapes import SHAPE_RULES, conv, linear


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor without values."""
    return torch.empty(shape, dtype=dtype, device="meta")


@given(
    lead=st.lists(st.integers(0, 4), max_size=3),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    biased=st.booleans(),
)
def test_linear_has_torchs_shape(lead: list[int], inputs: int, outputs: int, *, biased: bool) -> None:
    """For every number of leading axes."""
    arguments = (*lead, inputs), (outputs, inputs), (outputs,)
    bias = torch.zeros(outputs) if biased else None
    expected = functional.linear(torch.zeros(arguments[0]), torch.zeros(arguments[1]), bias)
    actual = linear(meta(*arguments[0]), meta(*arguments[1]), None if bias is None else bias.to("meta"))
    assert (expected.shape, expected.dtype, True) == (actual.shape, actual.dtype, actual.is_meta)


@given(
    sides=st.lists(
        st.tuples(*[st.integers(1, n) for n in (9, 3, 3, 2)], st.integers(0, 2)), min_size=1, max_size=3
    ),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 2),
)
def test_conv_has_torchs_shape(
    sides: list[tuple[int, int, int, int, int]], groups: int, inputs: int, outputs: int
) -> None:
    """For every side, kernel, stride, dilation, padding and grouping; an impossible one is left to torch."""
    size, kernel, stride, dilation, padding = zip(*sides, strict=True)
    images, weight = (2, groups * inputs, *size), (groups * outputs, inputs, *kernel)
    options = stride, padding, dilation, groups
    function = getattr(functional, f"conv{len(sides)}d")
    actual = conv(meta(*images), meta(*weight), None, *options)
    try:
        expected = function(torch.zeros(images), torch.zeros(weight), None, *options)
    except RuntimeError:
        assert NotImplemented is actual
    else:
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        (linear, (meta(2, 3), meta(4, 5))),
        (linear, (meta(2, 3), meta(4, 3), meta(5))),
        (linear, (meta(2, 3, dtype=torch.float64), meta(4, 3))),
        (linear, (meta(2, 3), meta(3))),
        (linear, (torch.zeros(2, 3), torch.zeros(4, 3))),
        (conv, (meta(2, 5, 8, 8), meta(4, 3, 3, 3))),
        (conv, (meta(3, 8, 8), meta(4, 3, 3, 3))),
        (conv, (meta(2, 3, 8, 8), meta(4, 3, 3, 3), None, 1, "same")),
        (conv, (meta(2, 6, 8, 8), meta(4, 2, 3, 3), None, 1, 0, 1, 3)),
        (conv, (meta(2, 3, 2, 2), meta(4, 3, 3, 3))),
    ],
)
def test_unsure_rules_leave_it_to_torch(rule: object, arguments: tuple[object, ...]) -> None:
    """Wrong sizes, dtypes, unbatched inputs, named padding and real values."""
    assert NotImplemented is rule(*arguments)


def test_rules_answer_for_torchs_functions() -> None:
    """Those the layers call."""
    assert {"linear", "conv1d", "conv2d", "conv3d"} == {function.__name__ for function in SHAPE_RULES}
