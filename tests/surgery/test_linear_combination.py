"""Linear combinations: published parameter counts, and folding back without a change of outputs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.models.config import CifarResNet, CifarResNetLC
from mimetic.models.linear_combination import LinearCombination
from mimetic.surgery.config import Fold
from mimetic.surgery.config import LinearCombination as Combine
from mimetic.surgery.linear_combination import fold, folded
from mimetic.surgery.network import build_network

from .conftest import EXAMPLE, Small, operated

PUBLISHED = {
    1: (37_290, 304_986),
    2: (69_802, 605_194),
    4: (134_826, 1_205_610),
    8: (264_874, 2_406_442),
    16: (524_970, 4_808_106),
    32: (1_045_162, 9_611_434),
    64: (2_085_546, 19_218_090),
    128: (4_166_314, 38_431_402),
}
"""Learnable and all parameters of the frozen ResNet-LC-20-16xE (arXiv 2301.11360)."""

SHAPE = ImageShape(3, 32, 32, 10)


@pytest.mark.parametrize("expansion", PUBLISHED)
def test_parameter_counts_are_the_published_ones(expansion: int) -> None:
    """Of the model by name, and of a CIFAR-ResNet after surgery, which freezes the rest."""
    named = build_network(CifarResNetLC(name=f"ResNet-LC-20-16x{expansion}"), shape=SHAPE, meta=True)
    surgery = (Combine(id="lc", match={"kind": "conv"}, expansion=expansion, expect=19),)
    rewritten = build_network(CifarResNet(), surgery, shape=SHAPE, meta=True)
    frozen = {name for one in rewritten.rewrites for name in one.frozen}

    learnable, total = PUBLISHED[expansion]
    sizes = {name: p.numel() for name, p in rewritten.model.named_parameters()}
    assert total == sum(p.numel() for p in named.model.parameters()) == sum(sizes.values())
    assert learnable == sum(size for name, size in sizes.items() if name not in frozen)


@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 5), st.integers(2, 5)),
    steps=st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
)
def test_folding_changes_no_output(
    sizes: tuple[int, int, int], kernel: tuple[int, int], steps: tuple[int, int, int], bias: bool, mode: str
) -> None:
    """One convolution computes what the two layers did, within 1e-5 of the outputs' size."""
    inputs, outputs, expansion = sizes
    torch.manual_seed(inputs + 10 * outputs)
    filters = nn.Conv2d(inputs, outputs * expansion, kernel, *steps, bias=False, padding_mode=mode)
    combination = LinearCombination(filters, outputs, bias=bias)
    images = torch.randn(2, inputs, 12, 12)

    torch.testing.assert_close(combination(images), folded(combination)(images), rtol=1e-5, atol=1e-5)


def test_trained_network_folds_in_place(small: Small) -> None:
    """Every combination becomes a plain convolution; the network computes the same with fewer numbers."""
    operated(small, {"match": "stem|body", "type": "linear_combination", "expansion": 4})
    images = torch.randn(2, 3, 8, 8)
    before = small(images)

    operated(small, {"id": "fold", "match": r".*\.filters", "type": "fold", "expect": 2})
    assert [n for n, m in small.named_modules() if type(m) is nn.Conv2d] == [
        "stem",
        "body",
        "grouped",
        "point",
    ]
    torch.testing.assert_close(before, small(images), rtol=1e-5, atol=1e-5)


def test_model_of_combinations_begins_folded() -> None:
    """As a rewrite, folding gives a ResNet the filters P·W of the LC network of its seed."""
    spec, shape = CifarResNetLC(name="ResNet-LC-8-4x2"), ImageShape(3, 8, 8, 4)
    surgery = (Fold(id="fold", match={"layer": r".*\.filters"}, expect=7),)
    whole, once = build_network(spec, shape=shape), build_network(spec, surgery, shape=shape)
    plain = build_network(CifarResNet(depth=8, width=4), shape=shape, meta=True)
    images = torch.randn(2, 3, 8, 8)

    assert list(plain.model.state_dict()) == list(once.model.state_dict())
    torch.testing.assert_close(whole.model(images), once.model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("between", "culprit"), [("norm", "BatchNorm2d"), ("relu", "ReLU")])
def test_what_stands_between_forbids_folding(between: str, culprit: str) -> None:
    """With a norm or an activation the two layers are not one, and all stay as they are."""
    model = nn.ModuleDict({"a": LinearCombination(nn.Conv2d(3, 4, 3), 2, bias=False, **{between: True})})
    before = repr(model)

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-U022"):
        fold(Fold(id="fold", match="a.filters"), ["a.filters"], dict(model.named_modules()))
    assert before == repr(model)


def test_norm_and_activation_stand_between(small: Small) -> None:
    """In this order: filters, norm, activation, 1×1."""
    operated(
        small,
        {"match": "stem", "type": "linear_combination", "norm": True, "activation": "relu", "expansion": 2},
    )
    stem = small.stem
    x = stem.filters(EXAMPLE + 1.0)

    torch.testing.assert_close(stem.combine(torch.relu(stem.norm(x))), stem(EXAMPLE + 1.0))
    assert stem.combine.bias is not None
    assert stem.filters.bias is None
