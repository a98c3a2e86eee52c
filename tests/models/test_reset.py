"""Resetting in place gives the bits of a new model, wherever the model is and whatever is beside it."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.graph.names import canonical_parameters
from mimetic.models.reset import draw_default, reset_keyed


def small() -> nn.Sequential:
    """Return a network with every kind of tensor our models have."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 16, 3), norm=nn.BatchNorm2d(16), flat=nn.Flatten(), head=nn.Linear(16, 4)
        )
    )


def spoil(model: nn.Module) -> None:
    """Make every tensor of a model wrong and freeze it."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(5)
    model.requires_grad_(False)


def assert_same(expected: nn.Module, actual: nn.Module) -> None:
    """Hold two models equal bit for bit."""
    theirs, ours = expected.state_dict(), actual.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_everything_is_reset() -> None:
    """Values, batch-norm statistics and `requires_grad` come back after training."""
    fresh = reset_keyed(small(), 0)
    spoiled = small()
    spoil(spoiled)

    actual = reset_keyed(spoiled, 0)

    assert_same(fresh, actual)
    assert all(parameter.requires_grad for parameter in actual.parameters())


def test_law_is_the_layers_own() -> None:
    """A layer draws what its `reset_parameters` draws: uniform within 1/√fan-in."""
    expected = 1 / (3 * 9) ** 0.5

    actual = reset_keyed(small(), 0).conv.weight.abs().max().item()

    assert 0.95 * expected < actual <= expected


def test_seeds_and_names_matter() -> None:
    """Another seed or another name gives other values."""
    weights = [reset_keyed(small(), seed).conv.weight for seed in (0, 1)]
    twins = reset_keyed(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 0)

    assert not torch.equal(*weights)
    assert not torch.equal(twins[0].weight, twins[1].weight)


def test_other_layers_do_not_matter() -> None:
    """A layer put in front and another order leave the values of the others as they were."""
    layers = dict(small().named_children())
    expected = copy.deepcopy(reset_keyed(nn.ModuleDict(layers), 0))
    spoil(nn.ModuleDict(layers))

    reset_keyed(nn.ModuleDict({"new": nn.Conv2d(3, 3, 1), **dict(reversed(layers.items()))}), 0)

    assert_same(expected, nn.ModuleDict(layers))


def test_memory_format_and_dtype_do_not_matter() -> None:
    """A channels-last model gets the same bits, a float64 model the same values."""
    expected = reset_keyed(small(), 0)

    assert_same(expected, reset_keyed(small().to(memory_format=torch.channels_last), 0))
    assert_same(expected.double(), reset_keyed(small().double(), 0))


def test_threads_do_not_matter() -> None:
    """One thread or two, the bits are the same."""
    expected = reset_keyed(small(), 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        actual = reset_keyed(small(), 0)
    finally:
        torch.set_num_threads(before)

    assert_same(expected, actual)


def test_wrappers_do_not_matter() -> None:
    """A model inside a wrapper draws under its own names."""
    expected = reset_keyed(small(), 0)

    actual = reset_keyed(nn.ModuleDict({"_orig_mod": small()}), 0)["_orig_mod"]

    assert_same(expected, actual)


class Wrapping(nn.Module):
    """A network whose layer is honestly called `module`, at the front and further inside."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(3, 3)
        self.inner = nn.ModuleDict({"module": nn.Linear(3, 3)})


def test_layers_called_module_keep_their_name() -> None:
    """Streams are keyed by the names that plans show, also for a layer that is not a wrapper's."""
    model = reset_keyed(Wrapping(), 0)
    for name, parameter in canonical_parameters(model).items():
        layer, _, local = name.rpartition(".")
        expected = draw_default(nn.Linear(3, 3), seed=0, name=layer, wanted=[local])[local]
        assert torch.equal(expected, parameter), name


def test_children_of_a_layer_are_left_alone() -> None:
    """A reset that reaches into children changes copies of them only."""
    layer = nn.MultiheadAttention(8, 2)
    before = layer.out_proj.bias.detach().fill_(3.0).clone()
    drawn = draw_default(layer, seed=0, name="attn", wanted=["in_proj_weight"])
    assert set(drawn) == {"in_proj_weight"}
    assert torch.equal(before, layer.out_proj.bias)


def test_global_stream_is_left_alone() -> None:
    """Torch's global generator continues as if nothing had happened."""
    model = small()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    reset_keyed(model, 0)

    assert torch.equal(expected, torch.rand(2))


def test_shared_tensors_are_drawn_once() -> None:
    """A tensor two layers share keeps being one, drawn by the first."""
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    expected = copy.deepcopy(reset_keyed(nn.ModuleDict({"a": nn.Linear(3, 3)}), 0)["a"].weight)

    reset_keyed(model, 0)

    assert model["a"].weight is model["b"].weight
    assert torch.equal(expected, model["a"].weight)


class Stubborn(nn.Module):
    """A layer that cannot be reset, or forgets a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2))


def test_unresettable_layer_is_refused() -> None:
    """A layer that owns tensors and has no `reset_parameters` is named."""
    with pytest.raises(UserError, match=r"^0: a Stubborn has no `reset_parameters`"):
        reset_keyed(nn.Sequential(Stubborn()), 0)


def test_forgotten_tensor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `reset_parameters` that leaves a tensor unset is found out."""
    monkeypatch.setattr(Stubborn, "reset_parameters", nn.Module.eval, raising=False)

    with pytest.raises(UserError, match="does not set all of `gain`"):
        reset_keyed(Stubborn(), 0)
