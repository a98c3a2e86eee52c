"""Parameters that share memory, cannot contain values, or are frozen: all or nothing, as planned."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import mimetic
from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.plans.plan import Plan


def initialized(model: nn.Module, *rules: dict[str, object]) -> Plan:
    """Initialize by rules."""
    named = [{"id": f"rule-{i}", **rule} for i, rule in enumerate(rules)]
    return mimetic.initialize(model, {"recipe": 1, "init": named}, seed=0)


def pair() -> nn.Sequential:
    """Return an embedding and a head of the same shape."""
    return nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8))


def sharing() -> nn.Sequential:
    """Return a model whose head shares the embedding's memory, but is another object."""
    model = pair()
    model[1].weight.data = model[0].weight.data
    return model


def test_a_tie_is_shared_memory() -> None:
    """Whether the parameters are one object or not; both are frozen together."""
    model = sharing()
    plan = initialized(model, {"match": "1", "init": {"type": "constant", "value": 0.5}, "freeze": True})

    assert plan.entry("1.weight") is plan.entry("0.weight")
    assert plan.frozen == ("0.weight",)
    assert bool((model[0].weight == 0.5).all())
    assert [layer.weight.requires_grad for layer in model] == [False, False]
    with torch.device("meta"):  # the plan of a model without values sees the tie as well
        empty = mimetic.plan(sharing(), {"recipe": 1, "init": []})
    assert empty.entry("1.weight") is empty.entry("0.weight")


def test_rules_that_contradict_each_other_on_shared_memory() -> None:
    """As on one object."""
    with pytest.raises(RecipeError) as caught:
        initialized(sharing(), {"match": "0", "init": "ones"}, {"match": "1", "init": "zeros"})
    assert caught.value.issues[0].code == "MIM-P010"


class Packed(nn.Module):
    """A layer that stores integers."""

    def __init__(self) -> None:
        """Store them."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.int8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use none of them."""
        return x


def with_weight(weight: Callable[[nn.Sequential], torch.Tensor]) -> Callable[[], nn.Module]:
    """Return what makes a pair with another weight of its head."""

    def make() -> nn.Module:
        model = pair()
        model[1].weight = nn.Parameter(weight(model))
        return model

    return make


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "integers": (lambda: nn.Sequential(*pair(), Packed()), "MIM-I110"),
    "expanded": (with_weight(lambda _: torch.zeros(1, 8).expand(8, 8)), "MIM-P014"),
    "transposed": (with_weight(lambda model: model[0].weight.detach().T), "MIM-P014"),
    "part of another": (with_weight(lambda model: model[0].weight.detach()[:4]), "MIM-P014"),
    "half": (with_weight(lambda _: torch.zeros(8, 8, dtype=torch.half)), "MIM-P039"),
}


@pytest.mark.parametrize(("make", "code"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_written_if_something_cannot_be(make: Callable[[], nn.Module], code: str) -> None:
    """The message names the parameter, and the layers before it keep their values."""
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rule = {"match": {"layer": ".*", "param": "weight"}, "init": {"type": "normal", "std": 1e6}}
    with pytest.raises(UserError) as caught:
        initialized(model, rule)
    assert [issue.code for issue in getattr(caught.value, "issues", [caught.value])] == [code]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    initialized(model, {"match": {"layer": ".*"}, "init": "keep"})


def test_views_that_interleave_do_not_overlap() -> None:
    """Even and odd rows of one tensor are two weights."""
    model, both = pair(), torch.zeros(16, 8)
    model[0].weight.data, model[1].weight.data = both[::2], both[1::2]
    initialized(model, {"match": "0", "init": "ones"}, {"match": "1", "init": "zeros"})
    assert both.mean(1).tolist() == [1.0, 0.0] * 8


def test_tensors_of_inference_mode() -> None:
    """They are written and frozen as others are."""
    with torch.inference_mode():
        model = pair()
    initialized(model, {"match": "0", "init": "ones"}, {"match": "1", "init": "zeros", "freeze": True})
    assert bool((model[0].weight == 1).all())
    assert not model[1].weight.requires_grad


@pytest.mark.parametrize(
    "init",
    [
        {"type": "constant", "value": 0.1},
        {"type": "constant", "value": -4.595},
        {"type": "normal", "std": 0.0},
    ],
)
def test_numbers_that_float32_cannot_contain(init: dict[str, object]) -> None:
    """A float64 parameter gets them as they are."""
    model = nn.Linear(4, 4, dtype=torch.float64)
    initialized(model, {"match": {"kind": "linear"}, "init": init})
    assert bool((model.weight == init.get("value", 0.0)).all())


def test_torchscript() -> None:
    """A compiled model is initialized by name."""
    with pytest.warns(FutureWarning):
        model = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    plan = initialized(model, {"match": "0", "init": "ones", "freeze": True})
    assert bool((model[0].weight == 1).all())
    assert (
        plan.frozen == tuple(n for n, p in model.named_parameters() if not p.requires_grad) == ("0.weight",)
    )


def frozen(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters that take no gradient."""
    return tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)


def test_the_plan_names_what_takes_no_gradient() -> None:
    """Whoever froze it: a rule of this plan, one of a plan before, or the model."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].bias.requires_grad_(False)
    assert (
        initialized(model, {"match": "0", "freeze": True}).frozen == frozen(model) == ("0.weight", "1.bias")
    )
    again = {"match": "0", "init": "ones", "freeze": True}
    assert initialized(model, again).frozen == frozen(model) == ("0.weight", "1.bias")
    assert initialized(model, {"match": "0", "freeze": False}).frozen == frozen(model) == ("1.bias",)
    rule = {"match": {"layer": ".*", "param": ".*"}, "freeze": False}
    assert initialized(model, rule).frozen == frozen(model) == ()


class Sinusoids(nn.Module):
    """A table that the model fills and freezes, beside one that it trains."""

    def __init__(self) -> None:
        """Make both."""
        super().__init__()
        self.table, self.words = nn.Embedding(8, 4), nn.Embedding(8, 4)
        self.table.requires_grad_(requires_grad=False)
        with torch.no_grad():
            self.table.weight.copy_(torch.sin(torch.outer(torch.arange(8.0), torch.arange(1.0, 5.0))))


EMBEDDINGS = {"match": {"kind": "embedding"}, "init": "ones"}


def test_what_the_model_froze_is_left() -> None:
    """Its values mean something. The plan names it, the rule and the repair."""
    model = Sinusoids()
    before = model.table.weight.clone()
    plan = initialized(model, EMBEDDINGS)
    assert torch.equal(model.table.weight, before)
    assert bool((model.words.weight == 1).all())
    entry = plan.entry("table.weight")
    assert (entry.rule, entry.initializer, entry.frozen) == (None, "keep", True)
    assert "rule `rule-0` leaves it" in entry.notes[0]
    assert "`freeze: true`" in entry.notes[0]
    assert not plan.entry("words.weight").notes


@pytest.mark.parametrize("freeze", [True, False])
def test_a_rule_with_freeze_initializes_what_the_model_froze(freeze: bool) -> None:
    """It says what becomes of the parameter, so it means it."""
    model = Sinusoids()
    plan = initialized(model, {**EMBEDDINGS, "freeze": freeze})
    assert bool((model.table.weight == 1).all())
    assert model.table.weight.requires_grad is not freeze
    assert not plan.entry("table.weight").notes


def test_a_rule_for_nothing_but_frozen_parameters() -> None:
    """It would do nothing, which is an error; so with a weight one of whose parts is frozen."""
    for rule in ({"match": "table", "init": "ones"}, {"match": "table", "covariance": "identity"}):
        with pytest.raises(RecipeError) as caught:
            initialized(Sinusoids(), rule)
        assert caught.value.issues[0].code == "MIM-P016"
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))  # as the head of DINO
    model[0].parametrizations.weight.original0.requires_grad_(requires_grad=False)
    with pytest.raises(RecipeError) as caught:
        initialized(model, {"match": "0", "init": "ones"})
    assert caught.value.issues[0].code == "MIM-P016"


def test_rules_may_differ_on_a_frozen_tied_tensor() -> None:
    """Neither initializes it."""
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4), nn.Embedding(4, 4))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(requires_grad=False)
    plan = initialized(model, EMBEDDINGS, {"match": {"layer": "1", "param": ".*"}, "init": "zeros"})
    assert [entry.rule for entry in plan.entries] == [None, "rule-1", "rule-0"]


def test_default_resets_running_statistics() -> None:
    """As `reset_parameters` does; other buffers keep their values."""
    norm = nn.BatchNorm1d(4)
    norm.register_buffer("counts", torch.arange(3))
    norm(5 * torch.randn(10, 4) + 3)
    initialized(nn.Sequential(norm), {"match": "0", "init": "default"})
    assert (norm.running_mean.tolist(), norm.running_var.tolist()) == ([0.0] * 4, [1.0] * 4)
    assert (int(norm.num_batches_tracked), norm.counts.tolist()) == (0, [0, 1, 2])


@pytest.mark.parametrize(
    "init", ["xavier_normal", "xavier_uniform", "kaiming_normal", "orthogonal", "default"]
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_weights_without_entries(init: str) -> None:
    """There is nothing to draw."""
    initialized(nn.Sequential(nn.Linear(0, 0), nn.Linear(4, 4)), {"match": {"kind": "linear"}, "init": init})


def test_a_plan_prints_as_a_table() -> None:
    """One line for each parameter that a rule claims or that is frozen."""
    model = pair()
    model[1].bias.requires_grad_(False)
    lines = str(initialized(model, {"match": "0", "init": {"type": "normal", "std": 0.02}})).splitlines()
    assert lines[0].startswith("1 of 3 parameters by 1 rule, seed 0, plan ")
    assert lines[3].split() == ["0.weight", "8×8", "embedding", "normal(std=0.02)", "0.02", "rule-0"]
    assert lines[4].split() == ["1.bias", "8", "linear", "model's", "own,", "frozen"]
    assert lines[5] == "1 parameter keeps the model's own initialization"
