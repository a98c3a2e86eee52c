"""The vision transformer: sizes by name, pools, positions, and the law it begins with."""

import pytest
import timm
import torch

from mimetic.graph.sites import find_sites
from mimetic.models.build import build
from mimetic.models.config import Vit
from mimetic.models.sincos import sincos2d
from mimetic.recipe.load import loads

SMALL = {"width": 24, "depth": 2, "heads": 4, "patch_size": 4, "image_size": 16}


@pytest.mark.parametrize(("size", "expected"), [("ti", 192), ("s", 384), ("b", 768)])
def test_sizes_by_name(size: str, expected: int) -> None:
    """Widths are those of DeiT; the parameters of ViT-Ti at patch 2 are counted by hand."""
    model = build(Vit(size=size), in_channels=3, num_classes=10, meta=True)
    blocks = 12 * (12 * expected**2 + 13 * expected)
    rest = 12 * expected + expected + 256 * expected + 2 * expected + 10 * expected + 10

    assert sum(p.numel() for p in model.parameters()) == blocks + rest


def _as_timm_says(name: str) -> str:
    """Return timm's name of a tensor of ours."""
    for ours, theirs in {"patch_embed.": "patch_embed.proj.", ".fc": ".mlp.fc", ".table": ""}.items():
        name = name.replace(ours, theirs)
    return name.removesuffix(".weight") if name in {"pos_embed.weight", "cls_token.weight"} else name


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_it_is_the_vit_of_timm(pool: str, positions: str) -> None:
    """With the same weights it gives the logits of timm's ViT."""
    model = build(Vit(**SMALL, pool=pool, positions=positions), in_channels=3, num_classes=5, seed=0).eval()
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        embed_dim=24,
        depth=2,
        num_heads=4,
        num_classes=5,
        class_token=pool == "cls",
        global_pool="token" if pool == "cls" else "avg",
        fc_norm=False,
    ).eval()
    ours = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    theirs.load_state_dict({_as_timm_says(name): value for name, value in ours.items()})
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        assert torch.allclose(model(images), theirs(images), atol=1e-5)


def test_it_begins_as_vits_do() -> None:
    """Matrices and positions are normal with deviation 0.02, biases zero."""
    model = build(Vit(size="ti", depth=1), in_channels=3, num_classes=10, seed=0)
    deviations = [
        model.get_parameter(n).std().item()
        for n in ("blocks.0.attn.qkv.weight", "blocks.0.fc1.weight", "pos_embed.weight")
    ]

    assert deviations == pytest.approx([0.02] * 3, rel=0.02)
    assert not model.blocks[0].attn.proj.bias.any()


def test_fixed_positions_are_no_parameter() -> None:
    """Sinusoids are a buffer, the same on every seed, and no site."""
    model = build(Vit(**SMALL, positions="sincos", pool="cls"), in_channels=3, num_classes=5, seed=0)

    assert torch.equal(model.pos_embed.table[0, 1:], sincos2d((4, 4), 24, layout="timm").float())
    assert "position" not in {site.kind for site in find_sites(model).composites}


def test_its_sites() -> None:
    """One attention in each block, one table on the grid of the patches."""
    graph = find_sites(
        build(Vit(**SMALL), in_channels=3, num_classes=5, meta=True), torch.empty(2, 3, 16, 16)
    )

    sites = [site for site in graph.composites if site.kind in {"attention", "position"}]

    assert [(site.layer, site.kind) for site in sites] == [
        ("pos_embed", "position"),
        ("blocks.0.attn", "attention"),
        ("blocks.1.attn", "attention"),
    ]
    assert [site.structure.grid for site in sites] == [(4, 4)] * 3


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{type: vit, heads: 5}", "a width of 192 cannot be shared by 5 heads"),
        ("{type: vit, patch_size: 3}", "images of side 32 have no whole patches of side 3"),
        ("{type: vit, width: 6, heads: 3, positions: sincos}", "a multiple of 4, not 6"),
    ],
)
def test_sizes_that_do_not_fit(model: str, expected: str) -> None:
    """Sizes are checked together when the recipe is read."""
    with pytest.raises(Exception, match=expected):
        loads(f"recipe: 1\nmodel: {model}\ndata: cifar10\n")
