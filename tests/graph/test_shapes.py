"""Shape rules agree with torch, and leave what they are unsure of to it."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mimetic.graph.shapes import ConvCall, answer, conv, linear


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
    actual = conv(ConvCall(meta(*images), meta(*weight), None, *options))
    try:
        expected = function(torch.zeros(images), torch.zeros(weight), None, *options)
    except RuntimeError:
        assert NotImplemented is actual
    else:
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (functional.linear, (meta(2, 3), meta(4, 5))),
        (functional.linear, (meta(2, 3), meta(4, 3), meta(5))),
        (functional.linear, (meta(2, 3, dtype=torch.float64), meta(4, 3))),
        (functional.linear, (meta(2, 3), meta(3))),
        (functional.linear, (torch.zeros(2, 3), torch.zeros(4, 3))),
        (functional.conv2d, (meta(2, 5, 8, 8), meta(4, 3, 3, 3))),
        (functional.conv2d, (meta(3, 8, 8), meta(4, 3, 3, 3))),
        (functional.conv2d, (meta(2, 3, 8, 8), meta(4, 3, 3, 3), None, 1, "same")),
        (functional.conv2d, (meta(2, 6, 8, 8), meta(4, 2, 3, 3), None, 1, 0, 1, 3)),
        (functional.conv2d, (meta(2, 3, 2, 2), meta(4, 3, 3, 3))),
    ],
)
def test_unsure_rules_leave_it_to_torch(function: object, arguments: tuple[object, ...]) -> None:
    """Wrong sizes, dtypes, unbatched inputs, named padding and real values."""
    assert NotImplemented is answer(function, arguments, {})


SIDES = st.integers(1, 3)
FLAG = st.booleans()


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return a call of a layer's function on small tensors with values; some of them are mistakes."""
    shape = tuple(draw(st.lists(SIDES, min_size=1, max_size=4)))
    other = tuple(draw(st.sampled_from([shape, shape[1:], (1, *shape), (3,), (2, 1)])))
    values, channels = torch.zeros(shape), torch.zeros(shape[1] if len(shape) > 1 else 1)
    images = torch.zeros((2, 3, draw(st.integers(1, 9)), draw(st.integers(1, 9))))
    pool = {"stride": draw(st.none() | SIDES), "padding": draw(st.integers(0, 2)), "ceil_mode": draw(FLAG)}
    statistics = draw(st.sampled_from([(None, None), (channels, channels)]))
    axes = draw(st.none() | st.integers(-4, 4) | st.lists(st.integers(-2, 2), max_size=2).map(tuple))
    heads = [torch.zeros((2, *draw(st.sampled_from([(3, 4), (5, 4), (5, 3)])))) for _ in range(3)]
    weight = draw(st.none() | st.just(torch.zeros(shape[-1:])) | st.just(torch.zeros(shape[-1] + 1)))
    return draw(
        st.sampled_from(
            [
                (functional.relu, (values,), {"inplace": draw(FLAG)}),
                (functional.gelu, (values,), {"approximate": draw(st.sampled_from(["none", "tanh", "x"]))}),
                (functional.hardswish, (values,), {}),
                (Tensor.add, (values, torch.zeros(other)), {}),
                (torch.mul, (values, 2), {}),
                (Tensor.mean, (values, axes, draw(FLAG)), {}),
                (functional.layer_norm, (values, shape[-1:], weight), {"eps": 1e-6}),
                (functional.layer_norm, (values, shape), {}),
                (functional.batch_norm, (values, *statistics), {"training": draw(FLAG), "momentum": 0.2}),
                (functional.max_pool2d, (images, draw(SIDES)), pool),
                (functional.adaptive_avg_pool2d, (images, (draw(SIDES), 2)), {}),
                (functional.scaled_dot_product_attention, tuple(heads), {"is_causal": draw(FLAG)}),
            ]
        )
    )


@given(calls())
@settings(max_examples=4 * settings.default.max_examples)
def test_rules_have_torchs_shape(call: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> None:
    """Where a rule answers, torch's own result has that shape; where torch refuses, no rule answers."""
    function, arguments, options = call
    without = [a.to("meta") if isinstance(a, Tensor) else a for a in arguments]
    actual = answer(function, tuple(without), options)
    try:
        expected = function(*arguments, **options)
    except (RuntimeError, ValueError, IndexError):
        assert NotImplemented is actual
    else:
        if actual is not NotImplemented:
            assert (expected.shape, expected.dtype, True) == (actual.shape, actual.dtype, actual.is_meta)


IMAGES, TOKENS, WEIGHT_I = meta(2, 8, 6, 6), meta(2, 5, 8), meta(8)


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (functional.linear, (TOKENS, meta(3, 8), meta(3)), {}),
        (functional.conv1d, (meta(2, 8, 5), meta(3, 8, 3), None, (1,), (1,), (1,), 1), {}),
        (functional.conv2d, (IMAGES, meta(8, 1, 3, 3), WEIGHT_I, (1, 1), (1, 1), (1, 1), 8), {}),
        (functional.conv3d, (meta(2, 8, 5, 5, 5), meta(3, 8, 3, 3, 3)), {}),
        (functional.relu, (IMAGES,), {"inplace": True}),
        (functional.gelu, (TOKENS,), {}),
        (functional.silu, (IMAGES,), {"inplace": False}),
        (Tensor.add, (TOKENS, meta(1, 5, 8)), {}),
        (Tensor.mul, (IMAGES, 0.5), {}),
        (Tensor.mean, (IMAGES, (2, 3)), {}),
        (functional.layer_norm, (TOKENS, (8,), WEIGHT_I, WEIGHT_I, 1e-6), {}),
        (functional.batch_norm, (IMAGES, WEIGHT_I, WEIGHT_I), {"weight": WEIGHT_I, "training": True}),
        (functional.max_pool2d, (IMAGES, 2), {"stride": 2, "ceil_mode": True}),
        (functional.adaptive_avg_pool2d, (IMAGES, 1), {}),
        (functional.scaled_dot_product_attention, (TOKENS, TOKENS, TOKENS), {}),
    ],
)
def test_rules_answer_what_the_common_networks_ask(
    function: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """As their layers call them, so that no network of ours loads torch's own rules."""
    assert answer(function, arguments, options) is not NotImplemented


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (Tensor.mean, (IMAGES,), {"dtype": torch.float64}),
        (Tensor.add, (TOKENS, TOKENS), {"alpha": 2}),
        (Tensor.add, (TOKENS, meta(5, 8, dtype=torch.float64)), {}),
        (functional.scaled_dot_product_attention, (TOKENS, TOKENS, TOKENS, meta(5, 5)), {}),
        (functional.max_pool2d, (IMAGES, 2), {"return_indices": True}),
        (functional.max_pool2d, (meta(1, 1, 5, 5), 2), {"ceil_mode": True}),
        (functional.batch_norm, (meta(1, 8), None, None), {"training": True}),
        (functional.relu, (torch.zeros(2),), {}),
        (functional.relu, (meta(2),), {"backwards": True}),
        (functional.linear, (), {"input": TOKENS, "weight": meta(3, 8)}),
        (torch.erf, (TOKENS,), {}),
    ],
)
def test_what_no_rule_knows_is_left_to_torch(
    function: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Other dtypes, options no rule has, values, and functions without a rule."""
    assert answer(function, arguments, options) is NotImplemented


@pytest.mark.slow
def test_planning_needs_none_of_torchs_own_rules() -> None:
    """They load SymPy, which takes longer than all else a plan of a small network does."""
    program = (
        "import sys; from mimetic.recipe.load import load\n"
        "from mimetic.study.planning.arms import plan_arms\n"
        "for model in ('convmixer', 'cifar_resnet', 'plain_cnn', 'vgg11', 'vit'):\n"
        "    plan_arms(load({'recipe': 1, 'name': 'x', 'model': model, 'data': 'cifar10', 'train': {}}))\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
