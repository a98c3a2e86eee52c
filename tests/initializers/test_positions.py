"""Position tables: the reference's entries, and where mimetic attention looks on them."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from mimetic import initialize, plan
from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites
from mimetic.initializers.attention_maps import balanced
from mimetic.initializers.composite import read_maps
from mimetic.models.sincos import sincos2d

TABLE = {"id": "table", "match": {"kind": "position"}, "init": "sincos2d"}


def vit(**more: object) -> nn.Module:
    """Return a small ViT with positions on a grid of 4×4 behind a class token."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=2, **more
    )


def test_timm_layout() -> None:
    """Entries of the token at row 0, column 1, as timm's own function and the reference have them."""
    table = sincos2d((16, 16), 192, layout="timm")
    theirs = timm.layers.build_sincos2d_pos_embed([16, 16], 192)

    assert table[1, 48:51].tolist() == pytest.approx([0.841471, 0.734822, 0.629797], abs=1e-6)
    assert table[1, 144:147].tolist() == pytest.approx([0.540302, 0.678260, 0.776760], abs=1e-6)
    assert table.norm(dim=1).tolist() == pytest.approx([9.797959] * 256, abs=1e-6)
    assert torch.allclose(table.float(), theirs, atol=1e-5)


def test_simple_layout() -> None:
    """Entries of the same token as Simple-ViT has them."""
    table = sincos2d((16, 16), 192, layout="simple")

    assert table[1, :3].tolist() == pytest.approx([0.841471, 0.732537, 0.625484], abs=1e-6)
    assert table[1, 48:51].tolist() == pytest.approx([0.540302, 0.680727, 0.780237], abs=1e-6)


def test_rows_come_before_columns() -> None:
    """A token's row moves the sines of y, on grids that are not square, too."""
    table = sincos2d((2, 3), 8, layout="timm")

    assert table[3, :2].tolist() == pytest.approx(torch.tensor([1.0, 0.01]).sin().tolist())
    assert table[2, 2:4].tolist() == pytest.approx(torch.tensor([2.0, 0.02]).sin().tolist())


def test_a_table_is_filled_behind_its_class_token() -> None:
    """Tokens before the grid are zero."""
    model = vit()
    initialize(model, {"recipe": 1, "init": [{**TABLE, "init": {"type": "sincos2d", "scale": 0.5}}]})

    assert not model.pos_embed[0, 0].any()
    assert torch.equal(model.pos_embed[0, 1:], 0.5 * sincos2d((4, 4), 24, layout="timm").float())


@pytest.mark.parametrize(
    ("model", "init", "expected"),
    [
        (
            lambda: nn.ModuleDict({"wpe": nn.Embedding(16, 8)}),
            "sincos2d",
            r"its 16 positions have no grid; give it, e.g. `grid: \[4, 4\]`",
        ),
        (
            vit,
            {"type": "sincos2d", "grid": [5, 5]},
            r"its 17 positions are fewer than 5×5; a grid that fits is `grid: \[4, 4\]`",
        ),
        (vit, {"type": "sincos2d", "grid": [2, 2]}, "its 17 positions are more than twice 2×2; a grid that"),
        (
            lambda: nn.ModuleDict({"wpe": nn.Embedding(16, 6)}),
            {"type": "sincos2d", "grid": [4, 4]},
            "a multiple of 4, at least 4, not 6",
        ),
    ],
)
def test_tables_without_a_grid_are_refused(
    model: Callable[[], nn.Module], init: object, expected: str
) -> None:
    """Positions of a sequence, grids too large, and odd widths."""
    with pytest.raises(RecipeError, match=expected):
        initialize(model(), {"recipe": 1, "init": [{**TABLE, "init": init}]})


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ([3, 3], ["the rule takes them as a grid of 3×3 after 8 of zeros"]),
        ([17, 1], ["the rule takes them as a grid of 17×1"]),
        ([4, 4], []),
    ],
)
def test_another_grid_than_the_models_is_noted(grid: list[int], expected: list[str]) -> None:
    """The plan does not leave the two side by side."""
    init = {"type": "sincos2d", "grid": grid}
    notes = plan(vit(), {"recipe": 1, "init": [{**TABLE, "init": init}]}).entry("pos_embed").notes

    assert list(notes) == ["a grid of 4×4 positions after 1 other", *expected]


def test_width_of_a_table() -> None:
    """The function itself refuses widths as well."""
    with pytest.raises(UserError, match="a multiple of 4, at least 8, not 4"):
        sincos2d((2, 2), 4, layout="simple")


@torch.no_grad()
def attention_of(model: nn.Module) -> Tensor:
    """Return the attention weights (heads, T, T) of the first block on the positions of the grid."""
    site = next(s for s in find_sites(model).composites if s.kind == "attention")
    maps = read_maps(site, {p.local: model.get_parameter(f"{site.layer}.{p.local}") for p in site.parameters})
    tokens = functional.layer_norm(model.pos_embed[0, 1:], (24,))
    q, k = (
        functional.linear(tokens, maps[name], maps[f"{name}_bias"]).unflatten(1, (2, 12)).transpose(0, 1)
        for name in ("q", "k")
    )
    return (q @ k.mT / 12**0.5).softmax(2)


@pytest.mark.parametrize(("layout", "itself", "first"), [("timm", 0.0445, 0.39), ("simple", 0.0408, 0.44)])
def test_what_one_head_sees_of_positions(
    layout: Literal["timm", "simple"], itself: float, first: float
) -> None:
    """From positions alone, 16×16 of width 192, a token's weight on itself is the reference's (§2.7)."""
    side = math.sqrt(3.0 / 192)
    noise = torch.from_numpy(np.random.RandomState(0).uniform(-side, side, (192, 192)))
    left, right = balanced(0.7 * noise + 0.7 * torch.eye(192, dtype=torch.float64), 64)
    tokens = functional.layer_norm(sincos2d((16, 16), 192, layout=layout), (192,))
    weights = (tokens @ left @ right @ tokens.T / 8.0).softmax(1)
    hits = (weights.argmax(1) == torch.arange(256)).double().mean()

    assert float(weights.diagonal().mean()) == pytest.approx(itself, abs=5e-5)
    assert float(hits) == pytest.approx(first, abs=5e-3)


def test_mimetic_attention_looks_at_near_tokens() -> None:
    """From positions alone a token attends to itself more than to others (reference, §2.7)."""
    model = vit()
    rules = [TABLE, {"id": "attention", "match": {"kind": "attention"}, "init": "mimetic_attention"}]
    initialize(model, {"recipe": 1, "init": rules})
    weights = attention_of(model)

    assert float(weights.diagonal(dim1=1, dim2=2).mean()) > 1.5 / 16
