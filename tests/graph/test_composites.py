"""Composite sites of real networks: attentions with their slots, position tables with their grids."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttentionV2

from mimetic.graph.site import Graph, Site
from mimetic.graph.sites import find_sites
from mimetic.graph.structure import Attention, Position


def on_meta(make: Callable[[], nn.Module]) -> Graph:
    """Return the graph of a model on the meta device, in order of registration."""
    with torch.device("meta"):
        return find_sites(make())


def small(config: type, **sizes: int) -> object:
    """Return a small configuration of transformers."""
    return config(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, **sizes)


def vit() -> nn.Module:
    """Return a small ViT of transformers."""
    return transformers.ViTModel(small(transformers.ViTConfig, image_size=16, patch_size=4))


def deit() -> nn.Module:
    """Return a small DeiT of transformers."""
    return transformers.DeiTModel(small(transformers.DeiTConfig, image_size=16, patch_size=4))


def bert() -> nn.Module:
    """Return a small BERT."""
    return transformers.BertModel(small(transformers.BertConfig, vocab_size=30))


def gpt2() -> nn.Module:
    """Return a small GPT-2."""
    return transformers.GPT2Model(transformers.GPT2Config(n_embd=24, n_layer=2, n_head=4, vocab_size=30))


def llama() -> nn.Module:
    """Return a small Llama with two heads to each key."""
    return transformers.LlamaModel(small(transformers.LlamaConfig, num_key_value_heads=2, vocab_size=30))


def timm_vit() -> nn.Module:
    """Return a small ViT of timm."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=4
    )


def torchvision_vit() -> nn.Module:
    """Return a small ViT of torchvision."""
    return torchvision.models.VisionTransformer(16, 4, 2, 4, 24, 32)


def encoder() -> nn.Module:
    """Return torch's own encoder."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 4, 32), 2, enable_nested_tensor=False)


CASES = {
    "timm": (timm_vit, "blocks.1.attn", ["qkv", "qkv", "qkv", "proj"]),
    "torchvision": (
        torchvision_vit,
        "encoder.layers.encoder_layer_1.self_attention",
        ["in_proj_weight"] * 3 + ["out_proj"],
    ),
    "encoder": (encoder, "layers.1.self_attn", ["in_proj_weight"] * 3 + ["out_proj"]),
    "vit": (vit, "layers.1.attention", ["q_proj", "k_proj", "v_proj", "o_proj"]),
    "deit": (deit, "layers.1.attention", ["q_proj", "k_proj", "v_proj", "o_proj"]),
    "bert": (bert, "encoder.layer.1.attention", ["self.query", "self.key", "self.value", "output.dense"]),
    "gpt2": (gpt2, "h.1.attn", ["c_attn"] * 3 + ["c_proj"]),
    "llama": (llama, "layers.1.self_attn", ["q_proj", "k_proj", "v_proj", "o_proj"]),
}


def attentions(graph: Graph) -> list[Site]:
    """Return the attention sites."""
    return [site for site in graph.composites if site.kind == "attention"]


@pytest.mark.parametrize("name", CASES)
def test_attention_is_recognised(name: str) -> None:
    """Every block has one site, whose four maps are where the library stores them."""
    make, layer, paths = CASES[name]
    first, last = attentions(on_meta(make))
    maps = [last.slot(slot) for slot in ("q", "k", "v", "out")]
    groups = 2 if name == "llama" else 4

    assert last.layer == layer
    assert [slot.parameter.removesuffix(".weight") for slot in maps] == paths
    assert (first.depth, last.depth) == (0.0, 1.0)
    assert [last.slot_shape(slot) for slot in ("q", "k", "v", "out")] == [
        (24, 24),
        (6 * groups, 24),
        (6 * groups, 24),
        (24, 24),
    ]
    structure = last.structure
    assert isinstance(structure, Attention)
    assert (structure.heads, structure.kv_heads, structure.head_dim, structure.value_dim) == (4, groups, 6, 6)


@pytest.mark.parametrize("name", CASES)
def test_slots_tile_their_tensors(name: str) -> None:
    """The slots of a tensor lie one after the other and cover it."""
    make, _, _ = CASES[name]
    site = attentions(on_meta(make))[0]
    for parameter in site.parameters:
        slots = [slot for slot in site.structure.slots if slot.parameter == parameter.local]
        side = parameter.shape[1 if slots[0].transposed else 0]
        ends = [0, *(slot.stop for slot in slots)]

        assert [slot.start for slot in slots] == ends[:-1]
        assert ends[-1] == side


def swin(version: int = 1) -> nn.Module:
    """Return a small Swin of transformers, or its second version, of two blocks."""
    config, model = (
        (transformers.SwinConfig, transformers.SwinModel)
        if version == 1
        else (transformers.Swinv2Config, transformers.Swinv2Model)
    )
    return model(
        config(image_size=32, patch_size=4, embed_dim=24, depths=[1, 1], num_heads=[2, 4], window_size=4)
    )


def test_swin_of_transformers() -> None:
    """Windows change nothing: four layers to each attention, wider from stage to stage."""
    sites = attentions(on_meta(swin))

    assert [(site.structure.heads, site.slot_shape("q")) for site in sites] == [(2, (24, 24)), (4, (48, 48))]
    assert [site.slot("out").parameter for site in sites] == ["o_proj.weight"] * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: swin(2),
        lambda: nn.ModuleList([ShiftedWindowAttentionV2(24, [4, 4], [0, 0], 4)]),
        lambda: timm.create_model("swinv2_cr_tiny_224", depths=(1, 1, 1, 1)),
        lambda: timm.create_model("swinv2_tiny_window8_256", depths=(1, 1, 1, 1)),
        lambda: nn.ModuleList([timm.layers.Attention(24, 4, qk_norm=True, norm_layer=nn.LayerNorm)]),
    ],
    ids=["transformers", "torchvision", "timm cr", "timm", "timm qk-norm"],
)
def test_cosine_attention_is_told(make: Callable[[], nn.Module]) -> None:
    """Where queries and keys are normalized, the plan says that their product is not the map."""
    sites = attentions(on_meta(make))
    assert sites
    for site in sites:
        assert any("normalized" in note for note in site.structure.notes)


def test_swin_has_an_attention_in_every_block() -> None:
    """Windows change nothing: timm's and torchvision's Swin are fused attentions."""
    expected = [3, 3, 6, 6, 12, 12, 12, 12, 12, 12, 24, 24]
    for make in (
        torchvision.models.swin_t,
        lambda: timm.create_model("swin_tiny_patch4_window7_224"),
    ):
        assert [site.structure.heads for site in attentions(on_meta(make))] == expected


def test_biases_kept_apart_are_slots() -> None:
    """BEiT stores the biases of queries and values as parameters of their own."""
    site = attentions(on_meta(lambda: timm.create_model("beit_base_patch16_224", depth=1)))[0]

    assert [slot.name for slot in site.structure.slots] == [
        "q",
        "k",
        "v",
        "out",
        "out_bias",
        "q_bias",
        "v_bias",
    ]


def test_keys_of_another_width() -> None:
    """Where keys or values have another width, torch keeps three tensors."""
    site = find_sites(nn.ModuleList([nn.MultiheadAttention(24, 4, kdim=10, vdim=12)])).composites[0]

    assert [site.slot_shape(name) for name in ("q", "k", "v", "out")] == [
        (24, 24),
        (24, 10),
        (24, 12),
        (24, 24),
    ]


class Odd(nn.Module):
    """An attention whose shapes contradict its heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = nn.Linear(24, 72), nn.Linear(24, 24), 5

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.proj(self.qkv(x)[..., :24])


def test_shapes_are_checked() -> None:
    """Attributes that contradict the shapes are not believed."""
    assert find_sites(Odd()).composites == ()


def test_tied_queries_and_keys_are_no_site() -> None:
    """One tensor cannot be two maps."""
    model = vit()
    for layer in model.layers:
        layer.attention.k_proj.weight = layer.attention.q_proj.weight

    assert attentions(find_sites(model)) == []


@pytest.mark.slow
def test_a_wrapped_layer_is_seen_through() -> None:
    """Wrappers of compilation and checkpointing change neither names nor slots."""
    model = timm_vit()
    plain = find_sites(model).composites
    model.blocks[0].attn = torch.compile(model.blocks[0].attn)

    assert find_sites(nn.DataParallel(model)).composites == plain


class Registers(nn.Module):
    """Patches on a grid that is known, and a table with a class token and four registers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = timm.layers.PatchEmbed(16, 4, 3, 24)
        self.pos_embed = nn.Parameter(torch.zeros(1, 21, 24))


GRIDS = {
    "timm": (timm_vit, "pos_embed", (17, 1, (4, 4))),
    "no class token": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=(16, 32), class_token=False, global_pool="avg"
        ),
        "pos_embed",
        (2, 0, (1, 2)),
    ),
    "registers": (Registers, "pos_embed", (21, 5, (4, 4))),
    "torchvision": (torchvision_vit, "encoder.pos_embedding", (17, 1, (4, 4))),
    "vit, not square": (
        lambda: transformers.ViTModel(small(transformers.ViTConfig, image_size=(16, 64), patch_size=4)),
        "embeddings.position_embeddings",
        (65, 1, (4, 16)),
    ),
    "vit": (vit, "embeddings.position_embeddings", (17, 1, (4, 4))),
    "deit": (deit, "embeddings.position_embeddings", (18, 2, (4, 4))),
    "bert": (bert, "embeddings.position_embeddings", (512, 0, None)),
    "gpt2": (gpt2, "wpe", (1024, 0, None)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_position_tables(name: str) -> None:
    """Tables are told with their grid where the tokens are patches, and only there."""
    make, layer, expected = GRIDS[name]
    sites = [site for site in on_meta(make).composites if site.kind == "position"]
    structure = sites[0].structure

    assert [site.layer for site in sites] == [layer]
    assert isinstance(structure, Position)
    assert (structure.tokens, structure.prefix, structure.grid) == expected


def test_what_a_site_says_of_itself() -> None:
    """The words of `mimetic plan`."""
    fused, split = (attentions(on_meta(make))[0] for make in (timm_vit, llama))
    table = next(site for site in on_meta(timm_vit).composites if site.kind == "position")

    assert fused.structure.describe("qkv.weight") == "q rows 0:24, k rows 24:48, v rows 48:72; 4 heads of 6"
    assert fused.structure.describe("qkv.bias") is None
    assert split.structure.describe("k_proj.weight") == "k rows 0:12; 4 heads of 6 over 2 of keys and values"
    assert table.structure.describe("pos_embed") == "a grid of 4×4 positions after 1 other"
    assert Attention((), 1, 1, 6, 4).sizes == "1 head of 6/4"


def test_what_a_site_holds() -> None:
    """The words of `mimetic plan --all`: the maps of each tensor."""
    (fused, _), (split, _) = (attentions(on_meta(make)) for make in (timm_vit, llama))

    assert fused.slots_by_parameter() == {"qkv.weight": ("q", "k", "v"), "proj.weight": ("out",)}
    assert list(split.slots_by_parameter().values()) == [("q",), ("k",), ("v",), ("out",)]


def test_the_layers_that_keep_a_number_of_heads() -> None:
    """Whether they are recognised or not: messages show it."""
    heads = on_meta(timm_vit).heads

    assert (heads["blocks.0.attn"], heads["blocks.1.attn"]) == (4, 4)
    assert find_sites(Odd()).heads == {"": 5}
