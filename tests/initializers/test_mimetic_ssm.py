"""State spaces initialized as linear attention: ours, those of transformers, and the numbers of the paper."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mimetic.config.errors import RecipeError
from mimetic.graph.sites import find_sites
from mimetic.models.config import Mamba
from mimetic.models.mamba import Mixer1, Mixer2
from mimetic.models.reset import reset_keyed
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

RANK, STATE, INNER, WIDTH, HEADS = 1, 4, 32, 16, 4


def _wrapped(mixer: nn.Module) -> nn.Module:
    """Return a model in which every mixer has the same name."""
    return nn.ModuleDict({"mixer": mixer})


def _ours(version: int) -> nn.Module:
    sizes = Mamba(dim=WIDTH, state=STATE, head_dim=8, depth=1)
    return reset_keyed(_wrapped(Mixer1(sizes) if version == 1 else Mixer2(sizes)), 0)


def _theirs(version: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": WIDTH, "state_size": STATE, "num_hidden_layers": 1}
    if version == 1:
        from transformers.models.mamba.modeling_mamba import MambaMixer

        return _wrapped(MambaMixer(transformers.MambaConfig(**sizes), layer_idx=0))
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = transformers.Mamba2Config(**sizes, n_groups=1, num_heads=HEADS, head_dim=8, chunk_size=8)
    return _wrapped(Mamba2Mixer(config, layer_idx=0))


def _plan(model: nn.Module, seed: int = 0, **settings: Any) -> Plan:
    rule = {"id": "ssm", "match": {"kind": "ssm"}, "init": {"type": "mimetic_ssm", **settings}}
    arm = load({"recipe": 1, "name": "r", "init": [rule]}).arms["main"]
    return resolve(arm, find_sites(model), seed=seed)


def _initialized(model: nn.Module, **settings: Any) -> dict[str, Tensor]:
    _plan(model, **settings).apply(model)
    return {name.removeprefix("mixer."): t.detach() for name, t in model.named_parameters()}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("make", [_ours, _theirs])
def test_the_contract(version: int, make: Any) -> None:
    """softplus(b) = 1 without a weight, the convolution passes its input on, exp(Δ A) is close to 1."""
    tensors = _initialized(model := make(version))
    mixer = model.get_submodule("mixer")

    bias = tensors["dt_proj.bias" if version == 1 else "dt_bias"]
    weight = tensors["dt_proj.weight"] if version == 1 else tensors["in_proj.weight"][-HEADS:]
    torch.testing.assert_close(nn.functional.softplus(bias), torch.ones_like(bias), rtol=0, atol=1e-6)
    assert not bool(weight.any())
    signal = torch.randn(2, INNER + (2 * STATE if version == 2 else 0), 9)
    conv = mixer.get_submodule("conv1d")
    torch.testing.assert_close(conv(signal)[..., :9], signal, rtol=0, atol=1e-6)
    decay = (-tensors["A_log"].exp()).exp()
    if version == 1:
        expected = torch.tensor([-(float(n) ** -8) for n in range(1, STATE + 1)]).exp().expand(INNER, STATE)
        torch.testing.assert_close(decay, expected, rtol=1e-5, atol=0)
        assert float(decay[0, 0]) == pytest.approx(math.exp(-1))
        assert float(decay[:, 1:].min()) > 0.996
    else:
        assert bool((tensors["A_log"] <= 0).all())
        assert bool((tensors["A_log"] >= -8 * math.log(16.0) - 1e-4).all())


def test_most_heads_of_mamba_2_forget_nothing() -> None:
    """A = -A₀⁻⁸ with A₀ from U(1, 16): exp(A) > 0.999 wherever A₀ > 2.4, which is 91 % of heads."""
    log = _initialized(_wrapped(Mixer2(Mamba(dim=1024, state=STATE, head_dim=2, depth=1))))["A_log"]
    decay = (-log.exp()).exp()

    assert len(decay) == 1024
    assert float((decay > 0.999).float().mean()) == pytest.approx(1 - 1.372 / 15, abs=0.03)
    assert float(decay.min()) >= math.exp(-1) - 1e-6


@pytest.mark.parametrize("version", [1, 2])
def test_storage_does_not_matter(version: int) -> None:
    """The same rule and seed give other people's layer the maps it gives ours, and leave the other rows."""
    own = _theirs(version)
    before = {n.removeprefix("mixer."): t.detach().clone() for n, t in own.named_parameters()}
    ours, theirs = _initialized(_ours(version)), _initialized(own)

    name, first = ("x_proj.weight", RANK) if version == 1 else ("in_proj.weight", 2 * INNER)
    assert torch.equal(ours[name][first:], theirs[name][first:])
    assert torch.equal(theirs[name][:first], before[name][:first])
    assert torch.equal(ours["A_log"], theirs["A_log"])


def test_reads_are_correlated_with_writes() -> None:
    """W_c = (W_c' + W_b) / 2: half the trace of W_bᵀ W_b, each entry with torch's default distribution."""
    mixer = _wrapped(Mixer1(Mamba(version=1, dim=512, state=64, depth=1)))
    tensors = _initialized(mixer)
    write, read = tensors["x_proj.weight"][-128:].double().split(64)

    bound = 1024**-0.5
    assert float(write.abs().max()) <= bound
    assert float(write.std()) == pytest.approx(bound / math.sqrt(3.0), rel=0.02)
    # 64 · 1024 products of independent entries: half, within five standard errors.
    assert float((read * write).sum() / (write * write).sum()) == pytest.approx(0.5, abs=0.01)


COMPONENTS = {
    "decay": {"A_log"},
    "step": {"dt_proj.weight", "dt_proj.bias"},
    "recall": {"x_proj.weight"},
    "convolution": {"conv1d.weight", "conv1d.bias"},
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_by_itself(name: str) -> None:
    """A component switched on alone writes its parameters, as all four together do, and no other."""
    model = _ours(1)
    before = {n.removeprefix("mixer."): t.detach().clone() for n, t in model.named_parameters()}
    after = _initialized(model, **{other: other == name for other in COMPONENTS})
    together = _initialized(_ours(1))

    assert {n for n, t in after.items() if not torch.equal(t, before[n])} == COMPONENTS[name]
    assert all(torch.equal(after[n], together[n]) for n in COMPONENTS[name])


def test_rows_that_share_a_tensor_are_switched_one_by_one() -> None:
    """Of Mamba-2's `in_proj`, `step` writes the rows of Δ alone."""
    model = _ours(2)
    before = model.get_parameter("mixer.in_proj.weight").detach().clone()
    after = _initialized(model, decay=False, recall=False, convolution=False)["in_proj.weight"]

    assert torch.equal(after[:-HEADS], before[:-HEADS])
    assert not bool(after[-HEADS:].any())


def test_applied_twice_is_applied_once() -> None:
    """A plan is a function of seed and names, though it keeps rows that are there."""
    model = _ours(2)
    once = {name: t.clone() for name, t in _initialized(model).items()}
    twice = _initialized(model)

    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_nothing_switched_on_is_a_mistake() -> None:
    """It is an error before anything is planned."""
    with pytest.raises(RecipeError, match="all four components are switched off"):
        _plan(_ours(1), **dict.fromkeys(COMPONENTS, False))


def test_a_model_without_state_spaces_says_how_they_are_told() -> None:
    """The repair names what is looked for."""
    with pytest.raises(RecipeError, match="no state space was recognized") as caught:
        _plan(nn.Linear(3, 3))
    assert "A_log" in str(caught.value.issues[0].hint)


def test_a_state_space_that_is_not_recognised_says_what_it_lacks() -> None:
    """A layer with an `A_log` is named, with the layers that are missing, or that its shapes disagree."""
    lacking, odd = _ours(1), _ours(2)
    del lacking.mixer.conv1d
    odd.mixer.in_proj = nn.Linear(WIDTH, 7)
    for model, message in ((lacking, "but no `conv1d`"), (odd, "but shapes that do not agree")):
        with pytest.raises(RecipeError, match=f"`mixer` of class Mixer[12] has an `A_log`, {message}"):
            _plan(model)
