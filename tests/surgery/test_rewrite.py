"""Rewrites on a network: which layers, which first values, and what is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mimetic.config.errors import RecipeError
from mimetic.config.registry import registered
from mimetic.data.shapes import ImageShape
from mimetic.models.config import CifarResNet, CifarResNetLC, Torchvision
from mimetic.models.linear_combination import LinearCombination
from mimetic.recipe.load import load
from mimetic.surgery.config import LinearCombination as Combine
from mimetic.surgery.config import Rewrite
from mimetic.surgery.network import build_network
from mimetic.surgery.rewrite import Rewritten, rewrite_network

from .conftest import EXAMPLE, Small, operated

COMBINE = {"match": {"layer": "stem|body"}, "type": "linear_combination"}
SHAPE = ImageShape(3, 8, 8, 4)


def combine(expansion: int) -> tuple[Combine]:
    """Return the rewrite of every ordinary convolution."""
    return (Combine(id="lc", match={"kind": "conv"}, expansion=expansion),)


def values(model: nn.Module) -> dict[str, list[float]]:
    """Return every tensor of a network as numbers."""
    return {name: tensor.flatten().tolist() for name, tensor in model.state_dict().items()}


def test_first_match_wins_on_the_network_as_it_was(small: Small) -> None:
    """A layer is replaced once, by the first rewrite that matches it; what was made is not matched again."""
    stem = {"match": {"layer": "stem"}, "type": "linear_combination", "expansion": 2}
    done = operated(
        small, stem, {**COMBINE, "match": {"class": "Conv2d", "kernel_size": {"min": 3}, "groups": 1}}
    )

    assert [(one.layer, one.rewrite) for one in done] == [("stem", "rewrite-0"), ("body", "rewrite-1")]
    assert (small.stem.filters.out_channels, small.body.filters.out_channels) == (16, 8)


def test_a_layer_used_twice_is_replaced_at_every_place(small: Small) -> None:
    """Two names of one layer are two names of its replacement."""
    operated(small, COMBINE)

    assert isinstance(small.body, LinearCombination)
    assert small.body is small.again


def test_what_is_said_of_a_rewrite(small: Small) -> None:
    """Layer, before and after, what is frozen: for the plan."""
    stem, _ = operated(small, {**COMBINE, "expansion": 3, "norm": True, "activation": "relu"})

    expected = Rewritten(
        layer="stem",
        rewrite="rewrite-0",
        type="linear_combination",
        arguments={"freeze": True, "expansion": 3, "norm": True, "activation": "relu"},
        was="conv 3×3, 3→8",
        becomes="24 frozen filters 3×3, norm, relu, 1×1 to 8",
        frozen=("stem.filters.weight",),
    )
    assert expected == stem


def test_model_by_name_is_the_rewritten_model() -> None:
    """ResNet-LC-8-4x3 and a ResNet-8-4 after surgery have the same names and the same bits."""
    named = build_network(CifarResNetLC(name="ResNet-LC-8-4x3", kernel_size=5), shape=SHAPE, seed=3)
    rewritten = build_network(CifarResNet(depth=8, width=4, kernel_size=5), combine(3), shape=SHAPE, seed=3)

    assert values(named.model) == values(rewritten.model)


def test_values_depend_on_seed_and_name_alone(small: Small) -> None:
    """Another rewrite beside it, or another network around it, changes nothing; another seed does."""
    alone, beside, reseeded = copy.deepcopy(small), copy.deepcopy(small), copy.deepcopy(small)
    operated(alone, {**COMBINE, "match": {"layer": "stem"}})
    operated(beside, {**COMBINE, "match": {"layer": "body"}}, {**COMBINE, "match": {"layer": "stem"}})
    operated(reseeded, {**COMBINE, "match": {"layer": "stem"}}, seed=1)

    assert values(alone.stem) == values(beside.stem)
    assert values(alone.stem)["filters.weight"] != values(reseeded.stem)["filters.weight"]
    assert values(small.grouped) == values(beside.grouped)


def test_new_layers_have_the_default_law_and_leave_the_global_stream(small: Small) -> None:
    """Filters are U(±1/sqrt(C_in·k²)), the 1×1 weights U(±1/sqrt(C_out·E)); no global number is drawn."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    operated(small, {**COMBINE, "match": {"layer": "body"}, "expansion": 50})

    assert torch.equal(expected, torch.rand(3))
    for layer, bound in ((small.body.filters, 200**-0.5), (small.body.combine, 400**-0.5)):
        assert bound == pytest.approx(float(layer.weight.detach().abs().max()), rel=0.01)
        assert bound / 3**0.5 == pytest.approx(float(layer.weight.detach().std()), rel=0.05)


class Combined(Small):
    """A small network that also has a linear combination, for `fold`."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.combined = LinearCombination(nn.Conv2d(3, 6, 3, padding=1, bias=False), 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        return super().forward(self.combined(x))


@given(st.sampled_from(list(registered("surgery").values())), st.integers(0, 3))
def test_outputs_keep_their_shape_on_any_device(section: type[Rewrite], seed: int) -> None:
    """Every registered rewrite keeps inputs and outputs; on the meta device names and shapes are the same."""
    rewrite = {**section.example, "type": section.type_name()}
    torch.manual_seed(0)
    real = Combined()
    meta, twin = Combined().to("meta"), copy.deepcopy(real)
    operated(real, rewrite, seed=seed)
    operated(meta, rewrite, seed=seed)
    operated(twin, rewrite, seed=seed)

    assert tuple(real(EXAMPLE).shape) == (2, 4)
    expected = [(n, p.shape, p.requires_grad) for n, p in real.named_parameters()]
    assert expected == [(n, p.shape, p.requires_grad) for n, p in meta.named_parameters()]
    assert all(p.is_meta for p in meta.parameters())
    assert values(real.body) == values(twin.body)


@pytest.mark.parametrize(
    ("rewrites", "code"),
    [
        ([{**COMBINE, "match": "stam"}], "MIM-U002"),
        (
            [COMBINE, COMBINE],
            "MIM-U003",
        ),
        ([{**COMBINE, "expect": 3}], "MIM-U004"),
        ([{**COMBINE, "match": "grouped"}], "MIM-U007"),
        ([{**COMBINE, "match": "point"}], "MIM-U008"),
        ([{**COMBINE, "match": "head"}], "MIM-U006"),
        (
            [{"match": "stem|body", "type": "shared_filters"}],
            "MIM-U030",
        ),
        ([{"match": "stem", "type": "fold"}], "MIM-U021"),
    ],
)
def test_mistakes_change_nothing(small: Small, rewrites: list[dict[str, Any]], code: str) -> None:
    """Each error names its rewrite, and the network is unchanged."""
    before = repr(small)

    with pytest.raises(RecipeError) as caught:
        operated(small, *rewrites)

    assert [code] == [issue.code for issue in caught.value.issues]
    assert before == repr(small)


def test_mistakes_are_told_together_at_their_lines(small: Small, tmp_path: Path) -> None:
    """All rewrites of an arm that do not fit, each at its place in the file."""
    text = (
        "recipe: 1\nsurgery:\n  - {id: a, match: stam, type: fold}\n"
        "  - {id: b, match: {kind: pointwise_conv}, type: factorised}\n"
    )
    (tmp_path / "wrong.yaml").write_text(text)
    recipe = load(tmp_path / "wrong.yaml")

    with pytest.raises(RecipeError) as caught:
        rewrite_network(small, recipe.arms["main"].surgery, seed=0, at=recipe.address("main"))

    expected = [(3, ("arms", "main", "surgery", "a")), (4, ("arms", "main", "surgery", "b"))]
    assert expected == [(issue.mark.line, issue.path) for issue in caught.value.issues]


def test_whole_network_is_refused() -> None:
    """A convolution that is the network itself has no place where another could stand."""
    with pytest.raises(RecipeError, match="it matches the whole network"):
        operated(nn.Conv2d(3, 4, 3), {**COMBINE, "match": {"kind": "conv"}})


def test_too_large_a_bank_is_refused() -> None:
    """Gigabytes of filters are a mistake, found before they are allocated."""
    wide = nn.Sequential(nn.Conv2d(1024, 1024, 7, device="meta"))

    with pytest.raises(RecipeError, match="would get 1,048,576 filters, more than 536,870,912 values"):
        rewrite_network(wide, combine(1024), seed=0)


def test_a_class_of_its_own_is_refused(small: Small) -> None:
    """A sub-class may compute something else, so it is not replaced by guess."""

    class Standardised(nn.Conv2d):
        pass

    small.stem = Standardised(3, 8, 3, padding=1)

    with pytest.raises(RecipeError, match="`stem` is a Standardised, and linear_combination"):
        operated(small, COMBINE)


def test_other_libraries_layers_keep_their_bits() -> None:
    """Torchvision initializes its network as a whole; surgery leaves the other layers as they were."""
    spec, shape = Torchvision(name="squeezenet1_1"), ImageShape(3, 64, 64, 4)
    plain = build_network(spec, shape=shape).model
    rewritten = build_network(spec, combine(1), shape=shape).model
    kept = values(rewritten)

    assert all(kept[name] == numbers for name, numbers in values(plain).items() if "squeeze" in name)
    assert "features.3.expand3x3.filters.weight" in kept
