"""What maps of attention promise: what keeps it passes in every dtype, and what does not is found."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mimetic.api.starting import plan
from mimetic.errors import RunError
from mimetic.initializers.attention import near_identity
from mimetic.initializers.factors import balanced
from mimetic.initializers.products import makes_best
from mimetic.plans.plan import Plan
from mimetic.streams import generator

FLOAT32 = torch.finfo(torch.float32).eps
IMPULSE = {"type": "impulse_attention", "grid": [4, 4]}
METHODS = {
    "mimetic": "mimetic_attention",
    "normal": {"type": "mimetic_attention", "noise": "normal", "qk_noise": 0.1},
    "almost the identity": {"type": "mimetic_attention", "qk_noise": 1e-9, "vp_noise": 1e-9},
    "noise": {"type": "mimetic_attention", "qk_diag": 0.0, "vp_diag": 0.0},
    "legacy": {"type": "mimetic_attention", "legacy_layout": True},
    "impulse": IMPULSE,
    "conditioned": "conditioned_attention",
}


def target(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Return noise plus identity."""
    return near_identity(rows, columns, noise=0.7, diagonal=0.7, law="uniform", stream=generator(seed))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    rank=st.integers(1, 45),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 3),
)
def test_best_factors_pass(rows: int, columns: int, rank: int, dtype: torch.dtype, seed: int) -> None:
    """Of any shape and rank, rounded to any dtype."""
    whole = target(rows, columns, seed)
    left, right = (factor.to(dtype).double() for factor in balanced(whole, rank))

    assert makes_best(whole, left, right, rounding=torch.finfo(dtype).eps)


def least(whole: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors of the smallest components."""
    left, values, right = torch.linalg.svd(whole)
    return left[:, -rank:] * values[-rank:].sqrt(), values[-rank:].sqrt()[:, None] * right[-rank:]


WRONG: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "too large": lambda a, r: (1.001 * balanced(a, r)[0], balanced(a, r)[1]),
    "transposed": lambda a, r: balanced(a.T.contiguous(), r),
    "sign": lambda a, r: (-balanced(a, r)[0], balanced(a, r)[1]),
    "shuffled": lambda a, r: (balanced(a, r)[0].roll(1, 1), balanced(a, r)[1]),
    "rows": lambda a, r: (balanced(a, r)[0].roll(1, 0), balanced(a, r)[1]),
    "least": least,
    "of another": lambda a, r: balanced(target(*a.shape, 1), r),
}


@pytest.mark.parametrize(
    ("mistake", "rank"),
    [*((mistake, 6) for mistake in WRONG), ("too large", 24), ("transposed", 24)],
)
def test_other_factors_do_not(mistake: str, rank: int) -> None:
    """Sizes, signs, order and orientation matter; so does which components they are."""
    whole = target(24, 24)
    left, right = (factor.float().double() for factor in WRONG[mistake](whole, rank))

    assert not makes_best(whole, left, right, rounding=FLOAT32)


def planned(init: object, dtype: torch.dtype = torch.float32) -> tuple[Plan, nn.Module]:
    """Return a plan for an attention of timm, and the network."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": timm.layers.Attention(24, 4, qkv_bias=True)}).to(dtype)
    rule = {"id": "a", "match": {"kind": "attention"}, "init": init}
    return plan({"recipe": 1, "init": [rule]}, model, seed=3), model


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_method_keeps_its_promises(name: str, dtype: torch.dtype) -> None:
    """Also where the parameters are stored in another dtype than the draw; the plan names what is checked."""
    made, model = planned(METHODS[name], dtype)
    made.apply(model)

    notes = made.entry("attn.qkv.weight").notes
    assert sum(note.startswith("checked after writing: ") for note in notes) == (
        3 if name == "conditioned" else 2
    )


def spoilt(made: Plan, change: Callable[[dict[str, Tensor]], None]) -> Plan:
    """Return a plan whose only draw is changed before it is written."""
    (action,) = made.actions

    def sample(sample: Callable[..., Mapping[str, Tensor]], *arguments: object) -> Mapping[str, Tensor]:
        drawn = {name: tensor.clone() for name, tensor in sample(*arguments).items()}
        change(drawn)
        return drawn

    draw = replace(action.draw, sample=partial(sample, action.draw.sample))
    return replace(made, actions=(replace(action, draw=draw),))


def exchanged(drawn: dict[str, Tensor]) -> None:
    """Exchange queries and keys."""
    drawn["qkv.weight"][:48] = drawn["qkv.weight"][:48].roll(24, 0)


def values_turned(drawn: dict[str, Tensor]) -> None:
    """Turn the map of the values."""
    drawn["qkv.weight"][48:] = drawn["qkv.weight"][48:].T.clone()


def heads_moved(drawn: dict[str, Tensor]) -> None:
    """Give each head the queries of another."""
    drawn["qkv.weight"][:24] = drawn["qkv.weight"][:24].roll(6, 0)


def grown(drawn: dict[str, Tensor]) -> None:
    """Enlarge queries."""
    drawn["qkv.weight"][:24] *= 1.001


@pytest.mark.parametrize(
    ("init", "change", "said"),
    [
        ("mimetic_attention", exchanged, r"W_Q·W_Kᵀ of each head is the best .* rank 6 of 0\.7·Z \+ 0\.7·I"),
        ("mimetic_attention", heads_moved, "W_Q·W_Kᵀ of each head"),
        ("mimetic_attention", values_turned, r"W_V·W_out is 0\.4·Z − 0\.4·I"),
        (IMPULSE, exchanged, "W_Q·W_Kᵀ of each head"),
        (IMPULSE, grown, "norms are"),
        ("conditioned_attention", grown, "W_Q of each head is semi-orthogonal"),
    ],
)
def test_what_is_not_kept_fails_the_run(
    init: object, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    """The message names the site and the promise."""
    made, model = planned(init)

    with pytest.raises(RunError, match=rf"`attn` does not follow its plan: .*{said}"):
        spoilt(made, change).apply(model)


def test_only_what_is_written_is_checked() -> None:
    """Where another rule begins the projection, its product with the values is not spoken of."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": timm.layers.Attention(24, 4, qkv_bias=True)})
    rules = [
        {"id": "zero", "match": r"attn\.proj", "init": "zeros"},
        {"id": "a", "match": {"kind": "attention"}, "init": "mimetic_attention"},
    ]
    made = plan({"recipe": 1, "init": rules}, model, seed=3)
    made.apply(model)

    assert [note for note in made.entry("attn.qkv.weight").notes if "checked" in note] == [
        "checked after writing: W_Q·W_Kᵀ of each head is the best approximation of rank 6 of 0.7·Z + 0.7·I"
    ]
