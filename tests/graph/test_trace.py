"""The traced forward: order of use, calls, and a model left as it was found."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mimetic.graph.names import unwrapped
from mimetic.graph.sites import find_sites
from mimetic.graph.trace import trace


class Reversed(nn.Module):
    """Runs its layers against the order of registration, one of them twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.twice, self.first, self.never = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.last(self.twice(self.twice(self.first(x))))


class Restless(nn.Module):
    """A forward that changes whatever it can reach."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4, momentum=None)
        self.drop = nn.Dropout()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.cache: dict[str, Tensor] = {}
        self.seen: list[Tensor] = []
        self.count, self.last = 0, None
        self.plain = torch.ones(40)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        self.steps += 1
        self.plain += 1
        self.count += 1
        self.last = self.cache["x"] = x
        self.seen.append(x)
        self.register_buffer("late", x, persistent=False)
        self.add_module("extra", nn.Linear(2, 2))
        self.linear.weight.data.zero_()
        self.train(not self.training)
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return self.drop(self.norm(self.linear(x))) * noise * self.plain[:4]


def run(model: nn.Module, *arguments: Any) -> list[str]:
    """Return the modules with parameters of their own in the order of their first call."""
    recorded, reason = trace(model, [arguments])
    assert reason is None
    named = [(name, module) for name, module in unwrapped(model).named_modules() if module._parameters]
    called = [(recorded.first[id(module)], name) for name, module in named if id(module) in recorded.first]
    return [name for _, name in sorted(called)]


def test_order_is_that_of_execution() -> None:
    """Registration does not matter."""
    assert run(Reversed(), torch.zeros(2, 4)) == ["first", "twice", "last"]


def test_calls_are_counted() -> None:
    """Modules by their calls, parameters by their uses."""
    model = Reversed()
    recorded, _ = trace(model, [(torch.zeros(2, 4),)])
    assert [recorded.calls.get(id(child), 0) for child in model.children()] == [1, 2, 1, 0]
    assert [recorded.calls.get(id(child.bias), 0) for child in model.children()] == [1, 2, 1, 0]


def state(model: nn.Module) -> list[tuple[str, int, Any]]:
    """Return every attribute of every module, by identity and as text."""
    return [
        (f"{name}.{key}", id(value), str(value))
        for name, module in model.named_modules()
        for key, value in module.__dict__.items()
    ]


def test_the_live_model_is_as_before() -> None:
    """Weights, buffers, flags, caches, hooks and attributes are the same objects with the same values."""
    model = Restless()
    model.norm.eval()
    model.linear.register_forward_hook(lambda *_: None)
    before, tensors = state(model), {name: value.clone() for name, value in model.state_dict().items()}
    assert trace(model, [(torch.zeros(2, 4),)])[1] is None
    assert before == state(model)
    assert list(tensors) == list(model.state_dict())
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    assert [model.training, model.linear.training, model.norm.training] == [True, True, False]


def test_the_live_model_is_as_before_a_failure() -> None:
    """Also when the forward raises."""
    model = Restless()
    before = state(model)
    assert trace(model, [(torch.zeros(2, 5),)])[0] is None
    assert before == state(model)


def test_random_streams_are_as_before() -> None:
    """Torch's, Python's and NumPy's."""
    model = Restless()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert trace(model, [(torch.zeros(2, 4),)])[1] is None
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_the_example_is_as_before() -> None:
    """Inputs keep their values, also those that are used as they are."""

    class Greedy(nn.Module):
        def forward(self, x: Tensor, ids: Tensor) -> Tensor:
            ids.add_(1)
            return x.zero_()[ids]

    x, ids = torch.ones(4), torch.tensor([1, 2])
    assert trace(Greedy(), [(x, ids)])[1] is None
    assert x.tolist() == [1.0] * 4
    assert ids.tolist() == [1, 2]


def test_hooks_of_the_user_do_not_run() -> None:
    """A hook would store tensors without values."""
    model, calls = Reversed(), []
    model.first.register_forward_hook(lambda *_: calls.append("after"))
    model.first.register_forward_pre_hook(lambda *_: calls.append("before"))
    assert run(model, torch.zeros(2, 4)) == ["first", "twice", "last"]
    assert calls == []


def test_a_parameter_used_by_another_module_has_its_place() -> None:
    """`nn.MultiheadAttention` never calls its output projection; it reads its weight."""
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    recorded, _ = trace(model, [(torch.zeros(2, 3, 8),)])
    used = [recorded.first[id(p)] for p in (model.self_attn.out_proj.weight, model.linear1.weight)]
    assert used == sorted(used)
    assert id(model.self_attn.out_proj) not in recorded.first


def test_looking_at_a_shape_is_no_use() -> None:
    """Shape, size, device and dtype make no tensors."""

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            _ = self.late.shape, self.late.size(), self.late.device, self.late.numel()
            out = torch.zeros(2, 3, device=x.device)
            out[0] = self.early
            return out + self.late

    model = Looking()
    recorded, _ = trace(model, [(torch.zeros(1),)])
    assert {id(model.early): 1, id(model.late): 2} == {
        identity: place for identity, place in recorded.first.items() if identity != id(model)
    }


@pytest.mark.parametrize("unrolled", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_are_seen(unrolled: type[nn.RNNBase]) -> None:
    """They are also kept in a plain list, which is replaced too."""
    model = unrolled(3, 4, num_layers=2)
    recorded, reason = trace(model, [(torch.zeros(5, 2, 3),)])
    assert reason is None
    assert {1} == {recorded.calls.get(id(p), 0) for p in model.parameters()}


class Awkward(nn.Module):
    """Mixes constants on the CPU, devices, autocast and random branches into a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.scale = torch.ones(6)
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        if not self.started.item():
            x = x + torch.arange(6)
        if torch.rand(()) < 2:
            x = x.to(self.linear.weight.device, torch.float32).cpu()
        with torch.autocast(device_type=x.device.type, enabled=False):
            x = self.linear(x)
        return torch.cat([x, torch.zeros(len(x), 6), torch.zeros_like(x, device=x.device)]) * self.scale


def test_awkward_forwards_are_traced() -> None:
    """Values are known where they do not come from weights, and devices look real."""
    assert run(Awkward(), torch.zeros(2, 6)) == ["linear"]


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_computed_by_hooks_are_seen(norm: str) -> None:
    """Torch's own weight hooks do run."""
    layer = getattr(nn.utils, norm)(nn.Linear(4, 4))
    recorded, _ = trace(nn.Sequential(layer), [(torch.zeros(2, 4),)])
    assert {1} <= {recorded.calls.get(id(p), 0) for p in layer.parameters()}
    assert 0 not in {recorded.calls.get(id(p), 0) for p in layer.parameters()}


def test_training_mode_comes_first() -> None:
    """Auxiliary heads take part whatever the mode the model is in."""

    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aux, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) + (self.aux(x) if self.training else 0)

    assert run(Auxiliary().eval(), torch.zeros(2, 2)) == ["head", "aux"]


def test_evaluation_mode_is_tried_too() -> None:
    """Detectors want targets in training mode."""

    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets are missing")
            return self.head(x)

    assert run(Picky(), torch.zeros(2, 2)) == ["head"]


def test_the_reason_is_that_of_the_first_attempt() -> None:
    """One line of it."""

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"{tuple(x.shape)} is wrong\nand more")

    expected = (None, "ValueError: (2, 5) is wrong")
    assert expected == trace(Broken(), [(torch.zeros(2, 5),), (torch.zeros(1),)])


def test_without_inputs_the_reason_asks_for_one() -> None:
    """There is nothing to run."""
    assert trace(nn.Identity(), []) == (None, "no input could be guessed for it; give an example input")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torchscript_is_not_traced() -> None:
    """Its forward cannot be watched."""
    scripted = torch.jit.script(nn.Linear(2, 2))
    assert trace(scripted, [(torch.zeros(2, 2),)]) == (
        None,
        "the model is compiled by TorchScript, which runs outside Python",
    )


def test_warnings_and_gradients_are_off() -> None:
    """The traced forward says nothing and builds no graph."""

    class Loud(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            import warnings

            warnings.warn("loud", stacklevel=1)
            if torch.is_grad_enabled():
                raise RuntimeError("gradients are on")
            return x

    assert trace(Loud(), [(torch.zeros(1),)])[1] is None


def test_a_forward_of_keywords_only() -> None:
    """Its example is a dictionary."""

    class Keywords(nn.Sequential):
        """A layer whose input has a name."""

        def forward(self, *, pixels: torch.Tensor) -> torch.Tensor:
            """Run the layer."""
            return super().forward(pixels)

    model = Keywords(nn.Linear(3, 2))
    graph = find_sites(model, {"pixels": torch.ones(1, 3)})
    assert (graph.traced, [site.calls for site in graph.sites]) == (True, [1])
