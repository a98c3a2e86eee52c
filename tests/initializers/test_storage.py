"""What a stored tensor contains beside one map is the same for every initializer."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import mimetic
from mimetic.config.registry import registered
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites
from mimetic.initializers.config import WeightSelection
from mimetic.models.build import build
from mimetic.models.config import Mamba
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule
from tests.plans.test_computed import WRAPS

LAYERWISE = [name for name, s in registered("init").items() if s.acts_on is None and not s.takes]
FANS = ["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"]
COVARIANCE = {"covariance": {"type": "identity", "variance": 0.5}}


def initialize(model: nn.Module, /, **rule: Any) -> Plan:
    """Initialize a model by one rule."""
    return mimetic.initialize(model, {"recipe": 1, "init": [{"id": "rule", **rule}]})


def section(name: str, **more: Any) -> dict[str, Any]:
    """Return the section of an initializer, with the example of its class."""
    return {"type": name, **registered("init")[name].example, **more}


def takes(model: nn.Module, name: str) -> bool:
    """Return whether an initializer can be planned for the first layer of a model."""
    rule = {"id": "rule", "match": "0", "init": section(name)}
    try:
        mimetic.plan(model, {"recipe": 1, "init": [rule]})
    except UserError:
        return False
    return True


class Tied(nn.Module):
    """A head tied to an embedding, whichever is registered first."""

    def __init__(self, *, head_first: bool) -> None:
        super().__init__()
        embedding, head = nn.Embedding(50, 8, padding_idx=3), nn.Linear(8, 50, bias=False)
        for name in ("head", "embedding") if head_first else ("embedding", "head"):
            setattr(self, name, head if name == "head" else embedding)
        head.weight = embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.embedding(tokens))


@pytest.mark.parametrize("name", [name for name in LAYERWISE if name != "keep"])
def test_the_row_of_the_padding_stays_zero_under_every_initializer(name: str) -> None:
    """As in torch's own reset; the moments are those of the other rows and the zeros together."""
    for layer in (nn.Embedding(64, 32, padding_idx=3), nn.EmbeddingBag(64, 32, padding_idx=-2)):
        model = nn.Sequential(layer)
        if not takes(model, name):
            continue
        plan = initialize(model, match="0", init=section(name))
        row = layer.padding_idx
        assert not bool(layer.weight[row].any())
        assert any(f"row {row} stays zero" in note for note in plan.entries[0].notes)
        assert name in {"zeros", "eye", "sparse"} or bool(layer.weight[row - 1].any())


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_the_row_of_the_padding_stays_zero_where_it_is_computed(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    """By weight norm, spectral norm or pruning: the layer uses zeros."""
    model = nn.Sequential(wrap(nn.Embedding(8, 8, padding_idx=3)))
    initialize(model, match="0", init={"type": "normal", "std": 0.5})
    rows = model.eval()(torch.arange(8))
    assert not bool(rows[3].any())
    assert bool(rows.any())


def test_what_a_forward_does_to_a_weight_is_in_the_plan() -> None:
    """It shortens rows to `max_norm`, or standardizes filters: the drawn moments are not those in use."""
    model = nn.Sequential(nn.Embedding(50, 64, max_norm=1.0), timm.layers.ScaledStdConv2d(3, 8, 3))
    plan = initialize(model, match={"layer": ".*"}, init={"type": "normal", "std": 0.5})
    shortened, standardized = (plan.entry(f"{layer}.weight").notes for layer in range(2))
    assert shortened == ("a forward shortens rows to a norm of 1, the layer's `max_norm` (drawn: 4)",)
    assert standardized[0].startswith("ScaledStdConv2d standardizes the weight in a forward")
    model[0](torch.arange(50))
    assert model[0].weight.norm(dim=1).tolist() == pytest.approx([1.0] * 50, abs=1e-4)


@pytest.mark.parametrize("head_first", [True, False])
@pytest.mark.parametrize("rule", [{"init": "ones"}, COVARIANCE])
def test_the_row_of_the_padding_stays_zero_through_a_tied_head(
    rule: dict[str, Any], *, head_first: bool
) -> None:
    """Whichever layer owns the tensor, and whichever the rule matches."""
    for name in ("head", "embedding"):
        model = Tied(head_first=head_first)
        initialize(model, match=name, **rule)
        assert not bool(model.head.weight[3].any())
        assert bool(model.head.weight[4].all())


@pytest.mark.parametrize("name", [name for name in LAYERWISE if name not in {"keep", "default"}])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_both_parts_of_a_complex_parameter_are_drawn_or_it_is_refused(name: str, dtype: torch.dtype) -> None:
    """The variance E|w − mean|² is the one the real parameter has, half of it in each part."""
    for make in (nn.Linear(64, 128, dtype=dtype), nn.Conv2d(8, 32, 5, dtype=dtype)):
        model = nn.Sequential(make)
        if not takes(model, name):
            continue
        plan = initialize(model, match="0", init=section(name))
        moments, weight = plan.entries[0].moments, model[0].weight.detach()
        assert moments is not None
        variance = float((weight - moments.mean).abs().square().mean())
        assert variance == pytest.approx(moments.std**2, rel=0.1, abs=1e-12)
        if moments.draws:
            assert float(weight.imag.square().mean()) == pytest.approx(moments.std**2 / 2, rel=0.1)


@pytest.mark.parametrize("name", ["orthogonal", "sparse"])
def test_what_has_no_complex_form_is_refused(name: str) -> None:
    """By name, before anything is written."""
    with pytest.raises(UserError, match="MIM-I112"):
        initialize(nn.Sequential(nn.Linear(4, 4, dtype=torch.cfloat)), match="0", init=section(name))


def test_a_covariance_draws_both_parts() -> None:
    """Filters of a complex layer have the covariance E f̄ᵀf."""
    model = nn.Sequential(nn.Linear(64, 128, dtype=torch.cfloat))
    initialize(model, match="0", **COVARIANCE)
    assert float(model[0].weight.detach().imag.var()) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_parameters_of_integers_are_refused(dtype: torch.dtype) -> None:
    """By name, before anything is written; they may be kept."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(torch.ones(4, 4).to(dtype), requires_grad=False)
    before = model[0].weight.clone()
    with pytest.raises(UserError, match="MIM-I110"):
        initialize(model, match=".*", init="normal")
    assert torch.equal(before, model[0].weight)
    initialize(model, match=".*", init="keep")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), (8, 9, 9)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 9, 9)),
        (nn.Conv1d(8, 8, 5, padding=2, groups=2), (8, 9)),
        (nn.Conv3d(4, 4, 3, padding=1, groups=2), (4, 5, 5, 5)),
        (nn.ConvTranspose2d(8, 8, 3, padding=1, groups=4), (8, 9, 9)),
    ],
)
def test_dirac_passes_every_channel_through(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """In each group of the layer."""
    model = nn.Sequential(layer)
    initialize(model, match={"layer": "0"}, init="dirac")
    x = torch.randn(2, *shape)
    with torch.no_grad():
        layer.bias.zero_()
        assert torch.equal(layer(x), x)


class Experts(nn.Module):
    """Experts as transformers stores them: output first, or input first."""

    def __init__(self, *, transposed: bool = False) -> None:
        super().__init__()
        self.num_experts, self.hidden_dim, self.intermediate_dim = 4, 64, 32
        self.is_transposed = transposed
        wide, narrow = (64, 96) if transposed else (96, 64), (32, 64) if transposed else (64, 32)
        self.up_proj = nn.Parameter(torch.zeros(4, *wide))
        self.down_proj = nn.Parameter(torch.zeros(4, *narrow))
        self.down_proj_bias = nn.Parameter(torch.zeros(4, 64))

    def matrices(self, name: str) -> Tensor:
        """Return the experts' matrices (E, out, in)."""
        stack = getattr(self, name).detach()
        return stack.mT if self.is_transposed else stack


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("name", ["kaiming_normal", "xavier_uniform", "orthogonal", "normal", "identity"])
def test_every_expert_of_a_stack_is_drawn_alone(name: str, *, transposed: bool) -> None:
    """With the fans of one expert, by one stream each; values do not depend on how they are stored."""
    model = nn.Sequential(Experts(transposed=transposed))
    rule = COVARIANCE if name == "identity" else {"init": section(name)}
    plan = initialize(model, match={"kind": "linear"}, **rule)

    entries = {entry.parameter: entry for entry in plan.entries}
    assert {name for name, entry in entries.items() if entry.rule} == {"0.up_proj", "0.down_proj"}
    assert not bool(model[0].down_proj_bias.any())
    for local in ("up_proj", "down_proj"):
        experts = model[0].matrices(local)
        alone = nn.Sequential(nn.Linear(experts.shape[2], experts.shape[1]))
        one = initialize(alone, match="0", **rule).entries[0].moments
        assert one is not None
        assert entries[f"0.{local}"].moments.std == pytest.approx(one.std)
        assert len({expert.numpy().tobytes() for expert in experts}) == 4
        other = nn.Sequential(Experts(transposed=not transposed))
        initialize(other, match={"kind": "linear"}, **rule)
        assert torch.equal(experts, other[0].matrices(local))
        if name == "orthogonal":
            for expert in experts:
                gram = expert.mT @ expert if len(expert) >= expert.shape[1] else expert @ expert.mT
                torch.testing.assert_close(gram, torch.eye(len(gram)))


def stored_maps(layer: nn.Module, local: str) -> tuple[Tensor, ...]:
    """Return the maps (out, in, …) in a tensor of a layer."""
    weight = getattr(layer, local).detach()
    if isinstance(layer, nn.ConvTranspose2d):
        return tuple(group.transpose(0, 1) for group in weight.chunk(layer.groups))
    count = {nn.LSTM: 4, nn.GRU: 3, nn.MultiheadAttention: 3}.get(type(layer))
    return weight.chunk(layer.groups if count is None else count)


LAYERS = {
    "lstm": (nn.LSTM(32, 64), "weight_ih_l0"),
    "gru": (nn.GRU(32, 64), "weight_hh_l0"),
    "attention": (nn.MultiheadAttention(48, 4), "in_proj_weight"),
    "grouped": (nn.Conv2d(32, 64, 3, groups=4), "weight"),
    "depthwise": (nn.Conv2d(64, 64, 5, groups=64), "weight"),
    "transposed": (nn.ConvTranspose2d(32, 128, 3), "weight"),
    "transposed groups": (nn.ConvTranspose2d(32, 64, 3, groups=4), "weight"),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", FANS)
def test_fans_are_those_of_torch_or_of_each_map(name: str, layer: str) -> None:
    """`per: tensor` is torch.nn.init on the stored tensor; `per: map` has the fans of each map in it."""
    module, local = LAYERS[layer]
    model = nn.Sequential(module)
    match = {"layer": "0", "param": local}
    plan = initialize(model, match=match, init=section(name))
    whole, moments = getattr(module, local).detach().clone(), plan.entry(f"0.{local}").moments
    expected = getattr(nn.init, f"{name}_")(torch.empty_like(whole))
    assert moments.std == pytest.approx(float(expected.std()), rel=0.15)

    per_map = initialize(model, match=match, init=section(name, per="map")).entry(f"0.{local}")
    maps = stored_maps(module, local)
    assert any(f"{len(maps)} maps" in note for note in per_map.notes) == (len(maps) > 1)
    alone = [getattr(nn.init, f"{name}_")(torch.empty(m.shape)) for m in maps]
    assert per_map.moments.std == pytest.approx(float(torch.stack(alone).square().mean().sqrt()), rel=0.15)
    if name == "orthogonal":
        for one in maps:
            matrix = one.flatten(1)
            side = min(matrix.shape)
            gram = matrix.T @ matrix if len(matrix) > side else matrix @ matrix.T
            torch.testing.assert_close(gram, torch.eye(side), atol=1e-5, rtol=1e-5)
    elif not math.isclose(per_map.moments.std, moments.std):
        assert any("per: map" in note for note in plan.entry(f"0.{local}").notes)


def test_rows_that_a_rule_leaves_have_every_bit_of_the_model() -> None:
    """Rows of a tensor that no map fills are copied in the model's precision."""
    model = build(Mamba(depth=1), in_channels=3, num_classes=5, seed=0).double()
    name, weight = next((n, p) for n, p in model.named_parameters() if n.endswith("in_proj.weight"))
    with torch.no_grad():
        weight += torch.pi
    before = weight.detach().clone()
    plan = initialize(
        model, match={"kind": "ssm"}, init={"type": "mimetic_ssm", "step": False, "convolution": False}
    )
    slots = next(site for site in plan.sites if site.kind == "ssm").structure.slots
    first = min(slot.start for slot in slots if name.endswith(slot.parameter) and slot.name != "step")
    assert first > 0
    assert torch.equal(weight[:first], before[:first])


def test_weights_without_real_numbers_are_not_copied_or_measured() -> None:
    """A copy would lose the imaginary parts."""
    trained = nn.Sequential(nn.Linear(8, 8, dtype=torch.cfloat))
    with pytest.raises(UserError, match="complex64") as error:
        mimetic.harvest(trained, statistic="nfm")
    assert error.value.code == "MIM-V182"
    network = TrainedNetwork("trained", find_sites(trained), trained)
    spec = WeightSelection.model_validate({"from": {"trial": "somewhere"}})
    rule = Rule.model_validate({"id": "rule", "match": "0", "init": spec})
    with pytest.raises(UserError, match="MIM-I057"):
        resolve(
            Arm(init=(rule,)),
            find_sites(nn.Sequential(nn.Linear(4, 4))),
            seed=0,
            harvests={harvest_key(spec): network},
        )


def test_the_digest_of_a_network_contains_every_bit() -> None:
    """Also imaginary parts, and bits that float32 does not have."""
    for dtype, change in ((torch.float64, 1e-12), (torch.complex64, 1j)):
        model = nn.Sequential(nn.Linear(4, 4, dtype=dtype))
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[0].weight += change
        digests = {TrainedNetwork("n", find_sites(m), m).digest for m in (model, other)}
        assert len(digests) == 2
