"""Small models of transformers, built from their configurations without a download."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

import mimetic
from mimetic.plans.plan import Plan

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {**SIZES, "vocab_size": 64, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2}
TOWER = {**SIZES, "num_hidden_layers": 1, "image_size": 16, "patch_size": 4}
PAIR = {
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("bos_token_id", "pad_token_id", "decoder_start_token_id"), 1),
    "d_model": 32,
    "vocab_size": 64,
    "max_position_embeddings": 40,
    "eos_token_id": 2,
}
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 8}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 64}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 4],
    "window_size": 4,
}
EXPERTS = {"num_local_experts": 4}
QWEN = {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24}
WHISPER = {
    "num_mel_bins": 16,
    "max_source_positions": 30,
    "max_target_positions": 30,
    "begin_suppress_tokens": None,
}
SPEECH = {
    "vocab_size": 32,
    "conv_dim": [16, 16],
    "conv_stride": [5, 2],
    "conv_kernel": [10, 3],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForMaskedLM": ("BertConfig", TEXT),
    "RobertaForMaskedLM": ("RobertaConfig", TEXT),
    "BartForConditionalGeneration": ("BartConfig", PAIR),
    "GemmaForCausalLM": ("GemmaConfig", GROUPED),
    "WhisperForConditionalGeneration": ("WhisperConfig", {**PAIR, **WHISPER}),
    "OPTForCausalLM": ("OPTConfig", {**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "AlbertForMaskedLM": ("AlbertConfig", {**TEXT, "embedding_size": 16}),
    "DebertaForMaskedLM": ("DebertaConfig", TEXT),
    "DebertaV2ForMaskedLM": ("DebertaV2Config", TEXT),
    "ElectraForMaskedLM": ("ElectraConfig", {**TEXT, "embedding_size": 16}),
    "MixtralForCausalLM": ("MixtralConfig", {**GROUPED, **EXPERTS}),
    "MambaForCausalLM": ("MambaConfig", {**TEXT, "state_size": 4}),
    "LlamaForCausalLM": ("LlamaConfig", GROUPED),
    "GPT2LMHeadModel": ("GPT2Config", GPT2),
    "T5ForConditionalGeneration": ("T5Config", T5),
    "ViTForImageClassification": ("ViTConfig", TOWER),
    "SwinForImageClassification": ("SwinConfig", SWIN),
    "DistilBertForMaskedLM": ("DistilBertConfig", DISTIL),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", TEXT),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", {**GROUPED, **QWEN}),
    "GptOssForCausalLM": (
        "GptOssConfig",
        {**GROUPED, **EXPERTS, "rope_parameters": {"rope_type": "default"}},
    ),
    "GraniteMoeForCausalLM": ("GraniteMoeConfig", {**GROUPED, **EXPERTS}),
    "MarianMTModel": ("MarianConfig", PAIR),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", {**SIZES, **SPEECH}),
    "ConvNextForImageClassification": (
        "ConvNextConfig",
        {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
    ),
}
FAST = {"BertForMaskedLM"}
"""Its imports cost seconds, those of others more."""

RULES = {"linear": "orthogonal", "conv": "kaiming_normal", "embedding": {"type": "normal", "std": 0.02}}


def build(name: str) -> nn.Module:
    """Build a small model."""
    config, sizes = CONFIGS[name]
    model: nn.Module = getattr(hf, name)(getattr(hf, config)(**sizes))
    return model


def initialized(model: nn.Module) -> Plan:
    """Initialize every linear layer, convolution and embedding by the rule of its kind."""
    kinds = {site.kind for site in mimetic.plan(model, {"recipe": 1}).matching.graph.sites}
    rules = [{"id": k, "match": {"kind": k}, "init": init} for k, init in RULES.items() if k in kinds]
    return mimetic.initialize(model, {"recipe": 1, "init": rules})


@pytest.mark.parametrize(
    "make",
    [pytest.param(partial(build, n), id=n, marks=() if n in FAST else pytest.mark.slow) for n in CONFIGS],
)
def test_every_tensor_of_a_model_is_planned_once(make: Callable[[], nn.Module]) -> None:
    """Ties are one entry; paddings stay zero; experts are drawn alone; what no rule claims is unchanged."""
    model = make()
    before = {name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)}
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    plan = initialized(model)
    own = dict(model.named_parameters(remove_duplicate=False))

    # 1. Every tensor is in the plan, under all of its names in one entry.
    entry_of = {name: entry for entry in plan.entries for name in (entry.parameter, *entry.aliases)}
    stored = {name for name in own if ".parametrizations." not in name}
    assert stored <= set(entry_of)
    for name in stored:
        assert own[name] is own.get(entry_of[name].parameter)
    # 2. What no rule claims is named as left, and unchanged: so are tables that the model filled and froze.
    for name in stored:
        entry = entry_of[name]
        assert (entry.rule is None) == (entry.initializer == "keep")
        assert entry.rule is not None or torch.equal(own[name], before[name])
        if name in frozen:
            assert (entry.rule, entry.frozen) == (None, True)
            assert entry.kind != "embedding" or "the model froze it" in entry.notes[0]
        else:
            assert entry.kind not in RULES or not name.endswith("weight") or entry.rule == entry.kind
    # 3. The rows of paddings are zero.
    for layer in model.modules():
        row, weight = getattr(layer, "padding_idx", None), getattr(layer, "weight", None)
        if row is not None and isinstance(weight, nn.Parameter):
            assert not bool(weight[row].any())
    # 4. Every expert is orthogonal.
    stacks = [name for name, p in own.items() if "experts" in name and p.ndim == 3]
    for name in stacks:
        assert entry_of[name].kind == "linear"
        for expert in own[name].detach():
            gram = expert @ expert.T if expert.shape[0] <= expert.shape[1] else expert.T @ expert
            torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_of_a_mixture_only_norms_are_left() -> None:
    """Routers and stacks of experts are linear layers, as the projections of attention are."""
    plan = initialized(build("MixtralForCausalLM"))
    assert {entry.kind for entry in plan.entries if entry.rule is None} == {"norm"}
    assert sum(entry.rule == "linear" for entry in plan.entries) == 2 * 7 + 1
