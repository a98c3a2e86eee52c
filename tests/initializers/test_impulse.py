"""Impulse attention: published values, the probability of the target, and the positions that it fits."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from mimetic import initialize, plan
from mimetic.config.errors import RecipeError
from mimetic.errors import RunError
from mimetic.initializers.impulse import OFFSETS, impulse_factors, impulse_logits, impulse_matrix, principal
from mimetic.streams import generator

SINCOS = {"id": "table", "match": {"kind": "position"}, "init": "sincos2d"}


def vit(grid: int = 4, width: int = 24, heads: int = 2, **more: object) -> nn.Module:
    """Return a ViT of depth 2 with positions on a square grid behind a class token."""
    sizes = {"img_size": 4 * grid, "patch_size": 4, "embed_dim": width, "depth": 2, "num_heads": heads}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **more)


def rule(init: object = "impulse_attention", **match: object) -> dict[str, object]:
    """Return the rule on every attention."""
    return {"id": "attention", "match": {"kind": "attention", **match}, "init": init}


def mistake(model: nn.Module, *rules: object) -> tuple[str | None, str, str | None]:
    """Return code, message and hint of the only mistake of some rules."""
    with pytest.raises(RecipeError) as caught:
        plan(model, {"recipe": 1, "init": list(rules)})
    (issue,) = caught.value.issues
    return issue.code, issue.message, issue.hint


@torch.no_grad()
def target_probabilities(model: nn.Module, block: int) -> list[float]:
    """Return each head's mean probability of its target, from the positions alone, of one block."""
    attention = model.blocks[block].attn
    grid = model.patch_embed.grid_size
    tokens = functional.layer_norm(model.pos_embed[0, 1:].double(), (attention.qkv.in_features,))
    qkv = functional.linear(tokens, attention.qkv.weight.double()).chunk(3, dim=1)
    found = []
    for head in range(attention.num_heads):
        q, k = (part.chunk(attention.num_heads, dim=1)[head] for part in qkv[:2])
        weights = (q @ k.T * attention.scale).softmax(1)
        target = impulse_matrix(grid, OFFSETS[head % 9])
        found.append(float((weights * target).sum(1)[target.any(1)].mean()))
    return found


@pytest.mark.parametrize(
    ("offset", "row", "trace", "norm"),
    [
        (
            (0, 0),
            [0.1004641094, -0.0125333471, -0.0699546774, 0.0046028975],
            1.0,
            0.4334273627820725,
        ),
        (
            (-1, 0),
            [-0.0996237984, -0.0028372724, 0.0747246725, 0.0254084368],
            -0.0980703640683024,
            0.48614498660135164,
        ),
    ],
)
def test_published_factors(offset: tuple[int, int], row: list[float], trace: float, norm: float) -> None:
    """The published function's values on P[i, j] = cos(1 + i·(j + 1)^1.5), without noise, to 1e-9."""
    i, j = torch.arange(9.0, dtype=torch.float64)[:, None], torch.arange(12.0, dtype=torch.float64)
    positions = functional.layer_norm((1 + i * (j + 1) ** 1.5).cos(), (12,))
    logits = 1000.0 * impulse_matrix((3, 3), offset)
    query, key = impulse_factors(principal(positions, 6), logits, rank=6, norm=1.0)
    product = query @ key.T

    assert product[0, :4].tolist() == pytest.approx(row, abs=1e-9)
    assert float(product.trace()) == pytest.approx(trace, abs=1e-9)
    assert float(product.norm()) == pytest.approx(norm, abs=1e-9)


@pytest.mark.parametrize("offset", [*OFFSETS, (2, -3), (0, 5)])
def test_impulse_matrix(offset: tuple[int, int]) -> None:
    """Ones where the neighbour is inside the grid, (rows − |m|)(columns − |n|) of them."""
    rows, columns = 4, 5
    expected = torch.zeros(20, 20, dtype=torch.float64)
    for r in range(rows):
        for s in range(columns):
            m, n = r + offset[0], s + offset[1]
            if 0 <= m < rows and 0 <= n < columns:
                expected[r * columns + s, m * columns + n] = 1.0

    assert torch.equal(impulse_matrix((rows, columns), offset), expected)
    assert float(expected.sum()) == (rows - abs(offset[0])) * max(columns - abs(offset[1]), 0)


def test_impulse_closed_form_hits_its_targets() -> None:
    """On 14×14 tokens of random positions (std 0.36) and heads of 64, the reference's rates."""
    positions = functional.layer_norm(
        0.36 * torch.randn(196, 192, generator=generator("positions"), dtype=torch.float64), (192,)
    )
    basis = principal(positions, 64)
    hits = []
    for head in range(3):
        target = impulse_logits((14, 14), OFFSETS[head], generator("head", head))
        w_q, w_k = impulse_factors(basis, target, rank=64, norm=7.0)
        logits = positions @ w_q @ w_k.T @ positions.T / 8.0
        target = impulse_matrix((14, 14), OFFSETS[head])
        valid = target.sum(1) > 0

        assert (float(w_q.norm()), float(w_k.norm())) == pytest.approx((7.0, 7.0), abs=1e-6)
        hits.append(float((logits.argmax(1) == target.argmax(1))[valid].double().mean()))

    assert sum(hits) / 3 >= 0.99
    assert min(hits) >= 0.98


@pytest.mark.parametrize(("grid", "width", "least"), [(8, 96, 0.9), (14, 192, 0.7), (16, 192, 0.5)])
def test_random_positions_have_the_published_probabilities(grid: int, width: int, least: float) -> None:
    """The rule fills the table with 18·N(0, 0.02²), and its heads attend to their targets there.

    Published for heads 0, 1, 2: 1.0/.99/.995, .997/.79/.80, .993/.51/.53.
    """
    model = vit(grid, width, 3)
    made = plan(model, {"recipe": 1, "init": [rule()]}, seed=0)
    remarks = {tensor.parameter: tensor.remark for tensor in made.apply(model)}

    assert float(model.pos_embed.detach().std()) == pytest.approx(0.36, rel=0.02)
    assert made.entry("pos_embed").rule == "attention"
    assert made.entry("pos_embed").moments.std == 0.36
    for block in range(2):
        found = target_probabilities(model, block)
        assert min(found) >= least
        assert found[0] >= 0.99
        remark = f"mean probability of the target {sum(found) / 3:.3f}, uniform {1 / grid**2:.3g}"
        assert remarks[f"blocks.{block}.attn.qkv.weight"] == remark


@pytest.mark.parametrize("mode", ["table", "sincos2d"])
@pytest.mark.parametrize(("grid", "width"), [(8, 96), (14, 192), (16, 192)])
def test_sinusoids_leave_the_attention_peaked(mode: str, grid: int, width: int) -> None:
    """With the default cut every head's probability is above one half, whoever fills the table."""
    model = vit(grid, width, 3)
    init = {"type": "impulse_attention", "positions": mode}
    made = initialize(model, {"recipe": 1, "init": [SINCOS, rule(init)]})

    assert min(target_probabilities(model, 0)) > 0.5
    assert made.entry("blocks.0.attn.qkv.weight").arguments["singular_cut"] == 0.05
    assert made.entry("pos_embed").rule == "table"


def test_the_models_own_table() -> None:
    """`positions: table` fits the table as it is and leaves it."""
    model = vit(8, 96, 3)
    before = model.pos_embed.clone()
    made = initialize(
        model, {"recipe": 1, "init": [rule({"type": "impulse_attention", "positions": "table"})]}
    )

    assert torch.equal(model.pos_embed, before)
    assert made.entry("pos_embed").rule is None
    assert min(target_probabilities(model, 0)) > 0.9


@pytest.mark.parametrize(
    ("rules", "init"),
    [
        ([SINCOS], {"positions": "sincos2d", "singular_cut": 1e-9}),  # the tail dominates: uniform
        ([{**SINCOS, "init": {"type": "sincos2d", "scale": 1.0}}], {"positions": "table", "norm": 0.1}),
        (
            [{"id": "zero", "match": {"class": "VisionTransformer", "param": "pos_embed"}, "init": "zeros"}],
            {"positions": "table"},
        ),
    ],
)
def test_uniform_attention_is_refused(rules: list[dict[str, object]], init: dict[str, object]) -> None:
    """Attention that ignores the positions is found before anything is written."""
    model = vit(16, 192, 3)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(RunError) as caught:
        initialize(
            model, {"recipe": 1, "init": [*rules, rule({"type": "impulse_attention", **init})]}, seed=0
        )

    assert caught.value.code in {"MIM-I036", "MIM-I037"}
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_what_was_written_is_checked() -> None:
    """A table that another step overwrites after the draw is found by reading it back."""
    model = vit(8, 96, 3)
    made = plan(model, {"recipe": 1, "init": [rule()]})
    made.apply(model)
    check = made.actions[-1].init.check
    stored = {name: p.detach().double() for name, p in model.named_parameters()}

    assert check is not None
    check(stored.__getitem__)
    with pytest.raises(RunError) as caught:
        check({**stored, "pos_embed": torch.randn(1, 65, 96, dtype=torch.float64)}.__getitem__)
    assert caught.value.code == "MIM-I037"


def test_who_fills_the_table() -> None:
    """Another rule on the table and random positions exclude each other, whichever comes first."""
    code, message, hint = mistake(vit(), SINCOS, rule())
    assert (code, message) == (
        "MIM-P017",
        "rule `attention` also initializes `pos_embed`, but rule `table` claims it",
    )
    assert hint == "set `positions: table`, or remove rule `table`"
    assert mistake(vit(), rule(), SINCOS)[0] == "MIM-P011"
    assert mistake(vit(), rule(param=r"qkv\.weight"))[0] == "MIM-P017"


def test_rules_that_match_no_attention_fill_no_table() -> None:
    """`expect` counts attentions alone."""
    assert mistake(vit(), rule(layer="nowhere"))[0] == "MIM-P022"
    assert mistake(vit(), {**rule(), "expect": 3})[0] == "MIM-P012"
    plan(vit(), {"recipe": 1, "init": [{**rule(), "expect": 2}]})


@pytest.mark.parametrize(
    ("make", "init", "code"),
    [
        (lambda: vit(pos_embed="none"), {}, "MIM-I038"),
        (lambda: vit(pos_embed="none"), {"positions": "sincos2d"}, "MIM-I032"),
        (vit, {"grid": [5, 5]}, "MIM-I042"),
    ],
)
def test_positions_that_are_not_known(
    make: Callable[[], nn.Module], init: dict[str, object], code: str
) -> None:
    """No table, no grid, or one that does not fit."""
    assert mistake(make(), rule({"type": "impulse_attention", **init}))[0] == code


def test_sinusoids_without_a_table() -> None:
    """Networks with other positions, here fixed ones, are given the grid."""
    model = vit(pos_embed="none")
    init = {"type": "impulse_attention", "positions": "sincos2d", "grid": [4, 4]}
    initialize(model, {"recipe": 1, "init": [rule(init)]})
    assert float(model.blocks[0].attn.qkv.weight[:12].detach().norm()) == pytest.approx(7.0, rel=1e-5)


def test_arguments_of_other_positions_are_refused() -> None:
    """A layout describes sinusoids."""
    init = {"type": "impulse_attention", "layout": "simple"}
    assert mistake(vit(), rule(init))[0] == "MIM-I103"


def test_another_grid_of_impulses_is_noted() -> None:
    """An attention inside windows may have another grid than the table; so may a slip."""
    init = {"type": "impulse_attention", "positions": "sincos2d", "grid": [3, 3]}
    notes = plan(vit(), {"recipe": 1, "init": [rule(init)]}).entry("blocks.0.attn.qkv.weight").notes

    assert "the rule takes the tokens as 3×3, where the table of positions has 4×4" in notes
