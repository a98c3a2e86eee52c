"""Weights that a layer computes: a rule sets the weight that the layer uses, or is refused."""

import warnings
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import mimetic
from mimetic.config.registry import registered as registry
from mimetic.errors import UserError
from mimetic.plans.plan import Plan

Wrap = Callable[[nn.Module], nn.Module]


def old(function: Callable[..., nn.Module]) -> Wrap:
    """Return a hook of `torch.nn.utils` without its deprecation warning."""

    def wrap(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(layer)

    return wrap


class Twice(nn.Module):
    """A parametrization of the user's with a right inverse."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return 2x."""
        return 2 * x

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Return x/2."""
        return x / 2


class Symmetric(nn.Module):
    """A parametrization without a right inverse."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the symmetric part."""
        return (x + x.mT) / 2


def registered(kind: type[nn.Module]) -> Wrap:
    """Return what registers a parametrization of the weight."""

    def wrap(layer: nn.Module) -> nn.Module:
        parametrize.register_parametrization(layer, "weight", kind())
        return layer

    return wrap


EXACT: dict[str, Wrap] = {
    "weight_norm hook": old(nn.utils.weight_norm),
    "weight_norm": parametrizations.weight_norm,
    "user": registered(Twice),
    "two": lambda layer: registered(Twice)(parametrizations.weight_norm(layer)),
}
SPECTRAL: dict[str, Wrap] = {
    "spectral_norm hook": old(nn.utils.spectral_norm),
    "spectral_norm": parametrizations.spectral_norm,
}
PRUNED: dict[str, Wrap] = {"pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.5)}
WRAPS = EXACT | SPECTRAL | PRUNED


def initialized(model: nn.Module, **rule: object) -> Plan:
    """Initialize by one rule, of everything called 0 unless it says otherwise."""
    return mimetic.initialize(model, {"recipe": 1, "init": [{"id": "r", "match": "0", **rule}]}, seed=0)


def used(layer: nn.Module) -> torch.Tensor:
    """Return the weight of one forward in evaluation mode."""
    seen = []
    hook = layer.register_forward_hook(lambda module, _args, _out: seen.append(module.weight.detach()))
    layer.eval()(torch.ones(1, 8))
    hook.remove()
    return seen[0]


def plain(**rule: object) -> torch.Tensor:
    """Return what the rule draws for a layer that stores its weight."""
    model = nn.Sequential(nn.Linear(8, 8))
    initialized(model, **rule)
    return model[0].weight.detach()


@pytest.mark.parametrize("wrap", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize(
    "init", ["xavier_normal", "orthogonal", "default", {"type": "constant", "value": 0.5}]
)
def test_the_layer_uses_the_drawn_weight(wrap: Wrap, init: object) -> None:
    """The draw is that of the layer without the parametrization, and the plan's prediction holds."""
    model = nn.Sequential(wrap(nn.Linear(8, 8)))
    plan = initialized(model, init=init)

    torch.testing.assert_close(used(model[0]), plain(init=init), rtol=1e-5, atol=1e-6)
    (entry,) = (entry for entry in plan.entries if entry.rule == "r")
    assert entry.parameter == "0.weight"
    assert any("computed by" in note for note in entry.notes)


@pytest.mark.parametrize("wrap", [EXACT["weight_norm hook"], EXACT["weight_norm"]])
def test_zero_is_a_length_with_a_direction(wrap: Wrap) -> None:
    """Weight norm of a zero weight is 0 · v / |v|, not 0 / 0."""
    model = nn.Sequential(wrap(nn.Linear(8, 8)))
    initialized(model, init="zeros")
    assert not used(model[0]).any()


@pytest.mark.parametrize("wrap", SPECTRAL.values(), ids=SPECTRAL)
def test_spectral_norm_is_one_in_evaluation_mode(wrap: Wrap) -> None:
    """The direction is the draw's, and the vectors are its own rather than those of the weight before."""
    model = nn.Sequential(wrap(nn.Linear(8, 8)))
    plan = initialized(model, init="xavier_normal")

    drawn = plain(init="xavier_normal")
    torch.testing.assert_close(used(model[0]), drawn / torch.linalg.matrix_norm(drawn, 2))
    assert plan.entry("0.weight").moments is None  # type: ignore[union-attr]


def test_pruned_entries_stay_zero() -> None:
    """The others are as drawn."""
    model = nn.Sequential(PRUNED["pruning"](nn.Linear(8, 8)))
    mask = model[0].weight_mask.clone()
    initialized(model, init="xavier_normal")
    torch.testing.assert_close(used(model[0]), plain(init="xavier_normal") * mask)


@pytest.mark.parametrize(
    ("wrap", "init", "code"),
    [
        (registered(Symmetric), "zeros", "MIM-P014"),
        (parametrizations.orthogonal, "xavier_normal", "MIM-G032"),
        (SPECTRAL["spectral_norm"], "zeros", "MIM-G031"),
        (SPECTRAL["spectral_norm hook"], "zeros", "MIM-G031"),
    ],
)
def test_what_cannot_be_set_is_refused_before_anything_is_written(wrap: Wrap, init: str, code: str) -> None:
    """All or nothing: the layers before it keep their values."""
    model = nn.Sequential(nn.Linear(8, 8), wrap(nn.Linear(8, 8)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        initialized(model, match={"kind": "linear"}, init=init)
    issues = getattr(caught.value, "issues", [caught.value])
    assert [issue.code for issue in issues] == [code]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("shape", [(8, 8), (8, 4), (4, 8)])
def test_an_orthogonal_parametrization_takes_an_orthogonal_matrix(shape: tuple[int, int]) -> None:
    """Its base is drawn by the seed, not by the global stream."""
    weights = []
    for _ in range(2):
        model = nn.Sequential(parametrizations.orthogonal(nn.Linear(*shape)))
        initialized(model, init="orthogonal")
        weights.append(model[0].weight.detach())
    drawn = nn.Sequential(nn.Linear(*shape))
    initialized(drawn, init="orthogonal")
    torch.testing.assert_close(weights[0], drawn[0].weight.detach(), atol=1e-5, rtol=1e-5)
    assert torch.equal(*weights)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_freezing_freezes_every_part(wrap: Wrap) -> None:
    """And the plan names the parameters that take no gradient."""
    model = nn.Sequential(wrap(nn.Linear(8, 8)))
    plan = initialized(model, freeze=True)
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == set(plan.frozen) == {name for name, _ in model.named_parameters() if name != "0.bias"}

    assert not initialized(model, freeze=False).frozen
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_parts_cannot_be_matched_by_themselves(wrap: Wrap) -> None:
    """A promise on `weight_v` would be none on the weight."""
    model = nn.Sequential(wrap(nn.Linear(8, 8)))
    plan = initialized(model, match={"layer": ".*", "param": ".*"}, init={"type": "normal", "std": 0.02})
    assert {entry.parameter for entry in plan.entries} == {"0.weight", "0.bias"}


class Block(nn.Module):
    """An attention, an MLP pair and a table of positions."""

    def __init__(self) -> None:
        """Make them."""
        super().__init__()
        self.attn, self.mlp = timm.layers.Attention(8, num_heads=2), timm.layers.Mlp(8, 16)
        self.embed_positions, self.torch_attn = nn.Embedding(8, 8), nn.MultiheadAttention(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Call all."""
        x = x + self.embed_positions(torch.arange(8))
        return self.mlp(self.torch_attn(x, x, x)[0] + self.attn(x))


COMPOSITE = {"attention": "mimetic_attention", "mlp": "mimetic_mlp", "position": "sincos2d"}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_composite_sites_see_computed_weights(wrap: Wrap) -> None:
    """They are recognized by the tensors that layers use, and these get the values of stored ones."""
    inits = {kind: {"type": name, **registry("init")[name].example} for kind, name in COMPOSITE.items()}
    inits["position"] |= {"grid": [2, 4]}
    rules = [{"id": kind, "match": {"kind": kind}, "init": init} for kind, init in inits.items()]
    torch.manual_seed(0)
    model, stored = Block(), Block()
    for layer in [m for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding)]:
        wrap(layer)
    if wrap is EXACT["weight_norm"]:
        wrap(model.torch_attn, "in_proj_weight")
    plan, plain = (mimetic.initialize(one, {"recipe": 1, "init": rules}) for one in (model, stored))

    assert [(e.parameter, e.rule, e.kind) for e in plan.entries] == [
        (e.parameter, e.rule, e.kind) for e in plain.entries
    ]
    model.eval()(torch.zeros(1, 8, 8))  # hooks compute
    for entry in plan.entries if wrap in EXACT.values() else ():
        if entry.rule is not None:
            layer, _, local = entry.parameter.rpartition(".")
            one, other = (getattr(m.get_submodule(layer), local).detach() for m in (model, stored))
            torch.testing.assert_close(one, other)
