"""Maps of attention: products, orientation by running real modules, the same maps whatever the storage."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

from mimetic import initialize
from mimetic.config.errors import RecipeError
from mimetic.graph.site import Site
from mimetic.graph.sites import find_sites
from mimetic.graph.structure import Attention
from mimetic.initializers.attention_maps import (
    NearIdentity,
    balanced,
    query_key_maps,
    semi_orthogonal,
    value_out_maps,
)
from mimetic.initializers.composite import read_maps
from mimetic.streams import generator

WIDTH, HEADS = 24, 4
QK, VP = NearIdentity(0.7, 0.7, "uniform"), NearIdentity(0.4, -0.4, "uniform")
NORMAL_QK, NORMAL_VP = replace(QK, distribution="normal"), replace(VP, distribution="normal")


def helper_target(alpha: float, beta: float, size: int = 8) -> Tensor:
    """Return the helper's target from numpy's legacy generator, seed 0 (methods-structured-init.md §2.7)."""
    side = math.sqrt(3.0 / size)
    noise = np.random.RandomState(0).uniform(-side, side, (size, size))
    return torch.from_numpy(alpha * noise + beta * np.eye(size))


@pytest.mark.parametrize(
    ("alpha", "beta", "row", "values"),
    [
        (
            0.7,
            0.7,
            [0.74184886, 0.18448645, 0.08810124, 0.03847931],
            [1.49517584, 1.40897227, 1.19707557, 0.97558314, 0.90594730, 0.65562565, 0.22311748, 0.00094217],
        ),
        (
            0.4,
            -0.4,
            [-0.37608636, 0.10542083, 0.05034357, 0.02198818],
            [0.98707766, 0.79405165, 0.61850038, 0.38144053, 0.33815731, 0.26878593, 0.18452873, 0.06846979],
        ),
    ],
)
def test_balanced_factors(alpha: float, beta: float, row: list[float], values: list[float]) -> None:
    """L·R = A and LᵀL = RRᵀ = the singular values, at the reference's numbers."""
    target = helper_target(alpha, beta)
    left, right = balanced(target, 8)

    assert target[0, :4].tolist() == pytest.approx(row, abs=1e-8)
    assert torch.allclose(left @ right, target, atol=1e-10, rtol=0)
    assert (left.T @ left).diagonal().tolist() == pytest.approx(values, abs=1e-8)
    assert torch.allclose(left.T @ left, right @ right.T, atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", [(40, 40), (60, 24), (24, 60)])
@pytest.mark.parametrize("rank", [6, 20])
def test_truncated_factors_are_the_best_approximation(shape: tuple[int, int], rank: int) -> None:
    """The product is that of the leading singular vectors, whichever way they are computed."""
    target = NORMAL_QK.sample(*shape, generator(0))
    left, right = balanced(target, rank)
    u, s, v = torch.linalg.svd(target, full_matrices=False)

    assert torch.allclose(left @ right, (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-10, rtol=0)
    assert torch.allclose(left.T @ left, right @ right.T, atol=1e-10, rtol=0)


def test_ranks_beyond_the_matrix_leave_nothing_dead() -> None:
    """More components than there are: repeated with shared weight, the product stays."""
    target = VP.sample(5, 5, generator(0))
    left, right = balanced(target, 12)

    assert torch.allclose(left @ right, target, atol=1e-10, rtol=0)
    assert float(left.norm(dim=0).min()) > 0.0
    assert float(right.norm(dim=1).min()) > 0.0


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_noise_has_variance_one_over_the_width(distribution: str) -> None:
    """The noise's singular values reach 2, whatever the width."""
    target = NearIdentity(1.0, 0.0, distribution).sample(300, 300, generator(1))

    assert float(target.std()) * math.sqrt(300) == pytest.approx(1.0, abs=0.01)
    assert float(torch.linalg.matrix_norm(target, 2)) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("width", "full", "truncated", "entry"), [(192, 0.6982, 0.3945, 0.0856), (384, 0.6969, 0.2221, 0.0639)]
)
def test_truncation_weakens_the_identity(width: int, full: float, truncated: float, entry: float) -> None:
    """The diagonal of the product, and the size of the entries, are those of the reference's table."""
    attention = Attention((), 1, 1, 64, 64)
    stream = generator(0, "qk.head0")
    target = QK.sample(width, width, stream)
    q, k = query_key_maps(attention, (width, width), QK, lambda s: generator(0, s))

    assert float(target.diagonal().mean()) == pytest.approx(full, abs=0.01)
    assert float((q.T @ k).diagonal().mean()) == pytest.approx(truncated, abs=0.01)
    assert float(q.std()) == pytest.approx(entry, rel=0.02)


@pytest.mark.parametrize(("width", "entry"), [(192, 0.0510), (384, 0.0361)])
def test_size_of_values_and_projection(width: int, entry: float) -> None:
    """The entries' deviation is that of the reference's table (methods-structured-init.md §2.7)."""
    attention = Attention((), 3, 3, width // 3, width // 3)
    maps = value_out_maps(attention, (width, width), VP, lambda s: generator(0, s))

    assert [float(factor.std()) for factor in maps] == pytest.approx([entry, entry], rel=0.02)


@pytest.mark.parametrize(("legacy", "spread"), [(False, 0.028), (True, 0.238)])
def test_diagonals_of_both_layouts(legacy: bool, spread: float) -> None:
    """Mean −0.401 either way; untransposed, it runs from −0.91 to 0 (methods-structured-init.md §2.2)."""
    attention = Attention((), 3, 3, 64, 64)
    v, out = value_out_maps(attention, (192, 192), VP, lambda s: generator(0, s), legacy_layout=legacy)
    diagonal = (v.T @ out.T).diagonal()

    assert float(diagonal.mean()) == pytest.approx(-0.401, abs=0.01)
    assert float(diagonal.std()) == pytest.approx(spread, rel=0.15)
    if legacy:
        assert [float(diagonal[0]), float(diagonal[-1])] == pytest.approx([-0.91, 0.0], abs=0.1)


def test_grouped_queries_share_keys_and_values() -> None:
    """Shared keys serve their heads best together; all heads' values and projections make A."""
    attention = Attention((), 4, 2, 3, 3)
    streams = lambda slot: generator(7, slot)  # noqa: E731
    q, k = query_key_maps(attention, (12, 12), NORMAL_QK, streams)
    v, out = value_out_maps(attention, (12, 12), NORMAL_VP, streams)
    targets = torch.cat([NORMAL_QK.sample(12, 12, streams(f"qk.head{h}")) for h in (0, 1)])
    u, s, w = torch.linalg.svd(targets, full_matrices=False)
    realised = torch.cat([q[:3].T @ k[:3], q[3:6].T @ k[:3]])
    assert (q.shape, k.shape, v.shape, out.shape) == ((12, 12), (6, 12), (6, 12), (12, 12))
    assert torch.allclose(realised, (u[:, :3] * s[:3]) @ w[:3], atol=1e-10, rtol=0)
    assert float(q[:6].norm()) / math.sqrt(2) == pytest.approx(float(k[:3].norm()))

    target = NORMAL_VP.sample(12, 12, streams("vp"))
    u, s, w = torch.linalg.svd(target)
    whole = sum(v[h // 2 * 3 :][:3].T @ out.T[h * 3 :][:3] for h in range(4))
    assert torch.allclose(whole, (u[:, :6] * s[:6]) @ w[:6], atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (9, 9)])
def test_semi_orthogonal(shape: tuple[int, int]) -> None:
    """The shorter side is orthonormal."""
    matrix = semi_orthogonal(*shape, generator(0))
    gram = matrix.T @ matrix if shape[0] >= shape[1] else matrix @ matrix.T

    assert torch.allclose(gram, torch.eye(min(shape), dtype=torch.float64), atol=1e-12, rtol=0)


# Modules as libraries store them, each with one attention of width 24 and 4 heads, under one name.


def config(kind: type, **more: int) -> object:
    """Return a configuration of transformers of that width."""
    sizes = {
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
    }
    return kind(**sizes, **more, attn_implementation="eager")


def torch_layer(**more: int) -> nn.Module:
    """Return torch's attention."""
    return nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **more)


def timm_layer() -> nn.Module:
    """Return timm's."""
    return timm.layers.Attention(WIDTH, HEADS, qkv_bias=True)


def torchvision_layer() -> nn.Module:
    """Return that of torchvision's ViT."""
    from torchvision.models.vision_transformer import EncoderBlock

    return EncoderBlock(HEADS, WIDTH, 32, 0.0, 0.0).self_attention


def own_layer() -> nn.Module:
    """Return that of our own ViT."""
    from mimetic.models.vit import Attention as Own

    return Own(WIDTH, HEADS)


def vit_layer() -> nn.Module:
    """Return that of transformers' ViT."""
    from transformers.models.vit.modeling_vit import ViTAttention

    return ViTAttention(config(transformers.ViTConfig))


def bert_layer() -> nn.Module:
    """Return BERT's."""
    from transformers.models.bert.modeling_bert import BertAttention

    return BertAttention(config(transformers.BertConfig))


def deit_layer() -> nn.Module:
    """Return that of transformers' DeiT."""
    from transformers.models.deit.modeling_deit import DeiTAttention

    return DeiTAttention(config(transformers.DeiTConfig))


def timm_swin_layer() -> nn.Module:
    """Return that of timm's Swin, for windows of one token."""
    from timm.models.swin_transformer import WindowAttention

    return WindowAttention(WIDTH, HEADS, window_size=1)


def torchvision_swin_layer() -> nn.Module:
    """Return that of torchvision's Swin, for windows of one token."""
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    return ShiftedWindowAttention(WIDTH, [1, 1], [0, 0], HEADS)


def swin_layer() -> nn.Module:
    """Return that of transformers' Swin, for windows of one token."""
    from transformers.models.swin.modeling_swin import SwinAttention

    return SwinAttention(transformers.SwinConfig(attn_implementation="eager"), WIDTH, HEADS, 1)


def gpt2_layer() -> nn.Module:
    """Return GPT-2's, stored input first."""
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    return GPT2Attention(transformers.GPT2Config(n_embd=WIDTH, n_head=HEADS))


def llama_layer(groups: int = HEADS) -> nn.Module:
    """Return Llama's, with as many keys as heads, or fewer."""
    from transformers.models.llama.modeling_llama import LlamaAttention

    return LlamaAttention(config(transformers.LlamaConfig, num_key_value_heads=groups), 0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "torch": torch_layer,
    "torch apart": lambda: torch_layer(kdim=WIDTH, vdim=WIDTH - 4),
    "timm": timm_layer,
    "torchvision": torchvision_layer,
    "own": own_layer,
    "timm swin": timm_swin_layer,
    "torchvision swin": torchvision_swin_layer,
    "transformers swin": swin_layer,
    "vit": vit_layer,
    "deit": deit_layer,
    "bert": bert_layer,
    "gpt2": gpt2_layer,
    "llama": llama_layer,
}
STORED = [name for name in LAYERS if name != "torch apart"]


def initialized(
    make: Callable[[], nn.Module], init: object = "mimetic_attention", seed: int = 3
) -> tuple[nn.Module, Site]:
    """Return a module initialized as `attn` of a network, and its site."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"attn": make()})
    initialize(
        model, {"recipe": 1, "init": [{"id": "a", "match": {"kind": "attention"}, "init": init}]}, seed=seed
    )
    return model["attn"], find_sites(model).composites[0]


def maps_of(make: Callable[[], nn.Module], init: object = "mimetic_attention") -> dict[str, Tensor]:
    """Return the realised maps."""
    layer, site = initialized(make, init)
    return read_maps(site, {p.local: layer.get_parameter(p.local).detach() for p in site.parameters})


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize(
    "init",
    [
        "mimetic_attention",
        "conditioned_attention",
        {"type": "impulse_attention", "positions": "sincos2d", "grid": [4, 4]},
    ],
)
def test_the_same_maps_whatever_the_storage(name: str, init: object) -> None:
    """Fused, split or input first: one rule and one seed make the same maps, bit for bit."""
    expected, found = maps_of(timm_layer, init), maps_of(LAYERS[name], init)
    made = ("q", "k", "v") if init == "conditioned_attention" else ("q", "k", "v", "out")

    assert {slot: torch.equal(found[slot], expected[slot]) for slot in made} == dict.fromkeys(made, True)


def with_identity(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer on single tokens: softmax over one token makes every head return that token's values."""
    tokens = x[:, None, :]
    if isinstance(layer, nn.MultiheadAttention):
        return layer(tokens, tokens, tokens, need_weights=False)[0][:, 0]
    name = type(layer).__name__
    if name == "BertAttention":
        return layer.output.dense(layer.self(tokens)[0])[:, 0]
    if name == "LlamaAttention":
        rotation = torch.ones(1, 1, layer.head_dim), torch.zeros(1, 1, layer.head_dim)
        return layer(tokens, rotation, None)[0][:, 0]
    if name == "ShiftedWindowAttention":
        return layer(tokens[:, None])[:, 0, 0]
    result = layer(tokens)
    return (result[0] if isinstance(result, tuple) else result)[:, 0]


@pytest.mark.parametrize("name", STORED)
def test_orientation_by_running_the_module(name: str) -> None:
    """With attention forced to the identity the layer is x ↦ x·A, A near −0.4·I; no transpose is lost."""
    layer, _ = initialized(LAYERS[name])
    x = torch.randn(50, WIDTH, generator=generator("x"))
    target = VP.sample(WIDTH, WIDTH, generator(3, "attn", "vp"))
    with torch.no_grad():
        result = with_identity(layer.eval(), x)

    assert torch.allclose(result, x @ target.float(), atol=1e-5, rtol=0)


def test_grouped_queries_by_running_the_module() -> None:
    """With two keys for four heads the layer still is the best approximation of x ↦ x·A."""
    layer, _ = initialized(lambda: llama_layer(2))
    x = torch.randn(50, WIDTH, generator=generator("x"))
    target = VP.sample(WIDTH, WIDTH, generator(3, "attn", "vp"))
    left, right = balanced(target, WIDTH // 2)
    with torch.no_grad():
        result = with_identity(layer.eval(), x)

    assert torch.allclose(result, x @ (left @ right).float(), atol=1e-5, rtol=0)


def test_heads_are_truncated_products() -> None:
    """W_Q·W_Kᵀ of every head is the truncated decomposition of that head's own target."""
    maps = maps_of(torch_layer)
    for head in range(HEADS):
        stream = generator(3, "attn", f"qk.head{head}")
        left, right = balanced(QK.sample(WIDTH, WIDTH, stream), WIDTH // HEADS)
        rows = slice(head * 6, head * 6 + 6)

        assert torch.allclose(maps["q"][rows].T @ maps["k"][rows], (left @ right).float(), atol=1e-5, rtol=0)


class Fused(nn.Module):
    """Grouped queries in one layer: four of the queries' heads, two of keys and of values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)


class Halves(nn.Module):
    """The same with the queries apart."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)


def test_grouped_queries_are_the_same_in_halves() -> None:
    """A declared layer for keys and values gets the maps of Llama's two, bit for bit."""
    declared = {"q": "q", "kv": "kv", "out": "proj", "heads": HEADS, "kv_heads": 2}
    layer = Halves()
    rule = {"id": "a", "match": "attn", "attention": declared, "init": "mimetic_attention"}
    initialize(nn.ModuleDict({"attn": layer}), {"recipe": 1, "init": [rule]}, seed=3)
    expected = maps_of(lambda: llama_layer(2))
    keys, values = layer.kv.weight.detach().chunk(2)
    found = {"q": layer.q.weight, "k": keys, "v": values, "out": layer.proj.weight}

    assert {slot: torch.equal(found[slot], expected[slot]) for slot in found} == dict.fromkeys(found, True)


def test_grouped_queries_are_the_same_fused() -> None:
    """One declared layer for all gets the maps of Llama's four, bit for bit."""
    declared = {"qkv": "qkv", "out": "proj", "heads": HEADS, "kv_heads": 2}
    model = nn.ModuleDict({"attn": Fused()})
    rule = {"id": "a", "match": "attn", "attention": declared, "init": "mimetic_attention"}
    initialize(model, {"recipe": 1, "init": [rule]}, seed=3)
    expected = maps_of(lambda: llama_layer(2))
    rows = model["attn"].qkv.weight.detach().split([WIDTH, WIDTH // 2, WIDTH // 2])
    found = dict(zip("qkv", rows, strict=True)) | {"out": model["attn"].proj.weight.detach()}

    assert {slot: torch.equal(found[slot], expected[slot]) for slot in found} == dict.fromkeys(found, True)


def test_keys_and_values_of_other_widths() -> None:
    """Rectangular products have the identity along their diagonal."""
    maps = maps_of(LAYERS["torch apart"])
    product = maps["v"].T @ maps["out"].T

    assert product.shape == (WIDTH - 4, WIDTH)
    assert float(product.diagonal().mean()) == pytest.approx(-0.4, abs=0.1)


def test_legacy_layout_is_the_known_mistake() -> None:
    """Untransposed factors: the map is (R·L)ᵀ, of the same trace, its diagonal spread out."""
    maps = {
        legacy: maps_of(timm_layer, {"type": "mimetic_attention", "legacy_layout": legacy})
        for legacy in (False, True)
    }
    plain, legacy = (maps[key]["v"].T.double() @ maps[key]["out"].T.double() for key in (False, True))

    assert torch.equal(maps[True]["v"], maps[False]["v"].T)
    assert float(legacy.trace()) == pytest.approx(float(plain.trace()), abs=1e-5)
    assert float(legacy.diagonal().std()) > 3 * float(plain.diagonal().std())


def test_biases() -> None:
    """Mimetic attention zeroes biases unless `bias: keep`; the others keep them unless `bias: zeros`."""

    def biases(init: object) -> list[bool]:
        layer, site = initialized(lambda: with_biases(timm_layer()), init)
        return [bool(layer.get_parameter(p.local).any()) for p in site.parameters if p.local.endswith("bias")]

    def with_biases(layer: nn.Module) -> nn.Module:
        for bias in (layer.qkv.bias, layer.proj.bias):
            nn.init.ones_(bias)
        return layer

    assert biases("mimetic_attention") == [False, False]
    assert biases({"type": "mimetic_attention", "bias": "keep"}) == [True, True]
    assert biases("conditioned_attention") == [True, True]
    assert biases({"type": "conditioned_attention", "bias": "zeros"}) == [False, True]


def test_conditioned_attention() -> None:
    """Queries and keys are semi-orthogonal by head, values identities, and the projection stays."""
    torch.manual_seed(3)
    projection = nn.ModuleDict({"attn": timm_layer()})["attn"].proj.weight
    maps = maps_of(timm_layer, "conditioned_attention")

    assert torch.equal(maps["v"], torch.eye(6, WIDTH).repeat(HEADS, 1))
    joint = maps_of(timm_layer, {"type": "conditioned_attention", "values": "joint"})
    assert torch.equal(joint["v"], torch.eye(WIDTH))
    assert torch.equal(joint["q"], maps["q"])
    assert torch.equal(maps["out"], projection)
    for name in ("q", "k"):
        heads = maps[name].view(HEADS, 6, WIDTH).double()
        assert torch.allclose(
            heads @ heads.mT, torch.eye(6, dtype=torch.float64).expand(HEADS, 6, 6), atol=1e-6
        )
    assert not torch.equal(maps["q"], maps["k"])


def test_a_part_that_another_rule_begins() -> None:
    """What an earlier rule claims is not written, and the rest is what it would have been."""
    model = nn.ModuleDict({"attn": timm_layer()})
    rules = [
        {"id": "zero", "match": r"attn\.proj", "init": "zeros"},
        {"id": "a", "match": {"kind": "attention"}, "init": "mimetic_attention"},
    ]
    initialize(model, {"recipe": 1, "init": rules}, seed=3)

    assert not model["attn"].proj.weight.any()
    assert torch.equal(model["attn"].qkv.weight[:WIDTH], maps_of(timm_layer)["q"])


def test_what_does_not_fit_is_refused() -> None:
    """Grids that nobody knows, heads that share keys, and legacy values that are not square."""

    def message(make: Callable[[], nn.Module], init: object) -> str:
        with pytest.raises(RecipeError) as caught:
            initialized(make, init)
        return caught.value.issues[0].message

    assert "and there is none of width 24" in message(timm_layer, "impulse_attention")
    impulse = {"type": "impulse_attention", "positions": "sincos2d", "grid": [4, 4]}
    assert message(lambda: llama_layer(2), impulse).endswith("but here 4 heads share 2 keys")
    legacy = {"type": "mimetic_attention", "legacy_layout": True}
    assert "needs as many values as inputs" in message(lambda: llama_layer(2), legacy)


def test_bits_do_not_depend_on_threads() -> None:
    """Heads side by side give the bits of heads one after the other."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = maps_of(timm_layer)
        torch.set_num_threads(3)
        together = maps_of(timm_layer)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)

    assert {slot: torch.equal(alone[slot], together[slot]) for slot in alone} == dict.fromkeys(alone, True)
