"""More tokens for a language model: sizes, ties and old rows, of transformers' models and of others."""

import math

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

import mimetic
from mimetic.errors import UserError


class Own(nn.Module):
    """An embedding, a position table and a head."""

    def __init__(self, *, tied: bool = False, bias: bool = True, padding: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(30, 8, padding_idx=padding)
        self.out = nn.Linear(8, 30, bias=bias)
        if tied:
            self.out.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return scores of the next token."""
        return self.out(self.tokens(ids))


def _gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=16))


def _bert() -> nn.Module:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForMaskedLM(BertConfig(vocab_size=30, pad_token_id=0, **small))


def _t5() -> nn.Module:
    small = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=30, tie_word_embeddings=False, **small))


MODELS = {
    "own": Own,
    "tied": lambda: Own(tied=True),
    "without a bias": lambda: Own(bias=False),
    "padding": lambda: Own(padding=2),
    "gpt2": _gpt2,
    "bert": _bert,
    "t5": _t5,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_have_more_tokens(name: str) -> None:
    """Old rows keep their bytes, what was tied is tied, new tokens can be used, and two calls agree."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    ties = len(list(model.parameters()))
    state = torch.get_rng_state()
    plan = mimetic.resize_embeddings(model, 36, tau=0.5, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    after = model.state_dict()
    grown = [n for n, t in after.items() if t.shape != before[n].shape]
    assert grown
    assert len(list(model.parameters())) == ties
    for n, tensor in after.items():
        assert torch.equal(tensor[: len(before[n])] if n in grown else tensor, before[n]), n
    for n in grown:
        assert len(after[n]) == 36
        if after[n].ndim == 2 or float(before[n].std()) > 0.0:
            spread = (after[n][30:] - before[n].mean(0)).norm()
            expected = 0.5 * math.sqrt(6 * float(before[n].reshape(30, -1).var(0).sum()))
            assert 0.3 * expected < float(spread) < 2.0 * expected, n
    assert {entry.initializer for entry in plan.entries} - {"keep"} == {"rows"}
    config = getattr(model, "config", None)
    assert config is None or config.vocab_size == 36
    ids = torch.tensor([[3, 35]])
    out = model(ids, decoder_input_ids=ids) if name == "t5" else model(ids)
    assert (out if isinstance(out, torch.Tensor) else out.logits).shape[-1] == 36
    torch.manual_seed(0)
    again = MODELS[name]()
    mimetic.resize_embeddings(again, 36, tau=0.5, seed=1)
    assert all(torch.equal(t, after[n]) for n, t in again.state_dict().items())


def test_the_same_size_changes_nothing() -> None:
    """The plan is empty."""
    model = Own()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    mimetic.resize_embeddings(model, 30)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def _two_tables() -> nn.Module:
    return nn.ModuleDict({"a": nn.Embedding(30, 8), "b": nn.Embedding(30, 8)})


def _two_heads() -> nn.Module:
    return nn.ModuleDict({"a": nn.Embedding(30, 8), "b": nn.Linear(8, 30), "c": nn.Linear(8, 30)})


@pytest.mark.parametrize(
    ("make", "size", "names", "code"),
    [
        (Own, 20, {}, "MIM-A012"),
        (Own, 40, {"embedding": "token"}, "MIM-A013"),
        (_two_tables, 40, {}, "MIM-A014"),
        (lambda: nn.Linear(3, 3), 40, {}, "MIM-A014"),
        (_two_heads, 40, {}, "MIM-A015"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Embedding(30, 8))),
            40,
            {},
            "MIM-A016",
        ),
    ],
)
def test_what_is_ambiguous_or_lost_is_an_error(
    make: object, size: int, names: dict[str, str], code: str
) -> None:
    """The model is as it was."""
    model = make()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        mimetic.resize_embeddings(model, size, **names)
    assert caught.value.code == code
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_names_decide() -> None:
    """One of two tables, one of two heads."""
    model = _two_heads()
    mimetic.resize_embeddings(model, 40, embedding="a", head="c")
    assert (model["a"].num_embeddings, model["b"].out_features, model["c"].out_features) == (40, 30, 40)
