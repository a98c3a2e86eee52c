"""Initial values and measurements do not depend on torch's ambient settings."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mimetic
from mimetic.config.registry import registered
from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import Mamba, Vit

Values = dict[str, Tensor]


@contextmanager
def default_device(name: str) -> Iterator[None]:
    """Set the default device for a while."""
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set the default dtype for a while."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def low_precision() -> Iterator[None]:
    """Allow bfloat16 in products of float32 for a while."""
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def everything() -> Iterator[None]:
    """Change every setting for a while."""
    with ExitStack() as stack:
        for name, setting in AMBIENT.items():
            if name != "everything":
                stack.enter_context(setting())
        yield


AMBIENT: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "matmul precision": low_precision,
    "everything": everything,
}


class Layers(nn.Module):
    """One layer of each kind for each of some names; a forward uses them all."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({name: nn.Conv2d(8, 8, 5, padding=2) for name in names})
        self.depthwise = nn.ModuleDict({name: nn.Conv2d(8, 8, 5, padding=2, groups=8) for name in names})
        self.linear = nn.ModuleDict({name: nn.Linear(8, 8) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        """Average the outputs of all layers."""
        maps = [*self.conv.values(), *self.depthwise.values()]
        x = sum(layer(x) for layer in maps).mean((2, 3)) / len(maps)
        return sum(layer(x) for layer in self.linear.values())


def example_of(family: str, name: str) -> dict[str, Any]:
    """Return the section of a component, with the example that its class gives."""
    return {"type": name, **registered(family)[name].example}


def kind_of(rule: dict[str, Any]) -> str | None:
    """Return the first kind of layer that takes a rule; None where no kind does."""
    for kind in ("depthwise", "conv", "linear"):
        try:
            mimetic.plan(Layers(["x"]), recipe({"match": f"{kind}.x", **rule}))
        except UserError:
            continue
        return kind
    return None


def recipe(*rules: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe of rules."""
    return {"recipe": 1, "init": [{"id": f"r{number}", **rule} for number, rule in enumerate(rules)]}


@cache
def images() -> Tensor:
    """Return images of eight channels."""
    return torch.randn(40, 8, 9, 9, generator=torch.Generator().manual_seed(0))


@cache
def planned() -> tuple[list[str], dict[str, Any]]:
    """Return names of layers, and the recipe that fills each by another component.

    They are the initializers of layers, and the covariances at every scale, that need no trained network.
    """
    inits = [n for n, section in registered("init").items() if section.acts_on is None and not section.takes]
    sources = [n for n, section in registered("covariance").items() if not section.takes and n != "file"]
    rules = {}
    for family, names in {"init": inits, "covariance": sources}.items():
        for name in names:
            rule = {family: example_of(family, name)}
            scales = registered("scale") if family == "covariance" else [None]
            for scale in scales if (kind := kind_of(rule)) else ():
                layer = f"{family}_{name}_{scale}"
                scaled = {} if scale is None else {"scale": example_of("scale", scale)}
                rules[layer] = {"match": f"{kind}\\.{layer}", **rule, **scaled, "freeze": True}
    return list(rules), recipe(*rules.values())


def layers(ambient: Callable[[], AbstractContextManager[object]]) -> Values:
    """Fill a layer by every component."""
    names, rules = planned()
    model, shown = Layers(names).requires_grad_(requires_grad=False), images()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    with ambient():
        plan = mimetic.initialize(model, rules, images=shown)
    assert plan.traced
    return dict(model.state_dict())


def composites(ambient: Callable[[], AbstractContextManager[object]]) -> Values:
    """Build networks and fill their composite sites by every component."""
    inits = {n: section for n, section in registered("init").items() if section.acts_on is not None}
    values: Values = {}
    for name, section in inits.items():
        spec = Mamba(depth=1) if section.acts_on == "ssm" else Vit(width=24, depth=1, heads=4, patch_size=4)
        match = {"match": {"kind": section.acts_on}}
        with ambient():
            model = build(spec, in_channels=3, num_classes=5, seed=0)
            mimetic.initialize(model, recipe({**match, "init": example_of("init", name)}))
        values |= {f"{name}: {key}": value for key, value in model.state_dict().items()}
    return values


def measurements(ambient: Callable[[], AbstractContextManager[object]]) -> Values:
    """Measure a network by every statistic, resample it, and take its ansatz."""
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))  # noqa: E731
    trained, other, shown = make(), make(), images()
    statistics = [n for n, s in registered("covariance").items() if "measure" in s.functions]
    with ambient():
        found = {name: mimetic.harvest(trained, shown, name) for name in statistics}
        ansatz = mimetic.ansatz(trained, shown)
        mimetic.resample(other, trained, shown)
    values = dict(other.state_dict())
    for name, harvest in found.items():
        for layer in harvest.layers:
            if layer.covariance is not None:
                values[f"{name}: {layer.layer}"] = layer.covariance.dense()
    return values | {layer.site.layer: layer.gradients.dense() for layer in ansatz}


@pytest.mark.parametrize(
    "setting",
    [name if name == "everything" else pytest.param(name, marks=pytest.mark.slow) for name in AMBIENT],
)
@pytest.mark.parametrize("values", [layers, composites, measurements])
def test_values_do_not_depend_on_ambient_settings(
    values: Callable[[Callable[[], AbstractContextManager[object]]], Values], setting: str
) -> None:
    """Every component gives equal bytes under every setting, and the setting is there afterwards."""
    expected = reference(values)
    found = values(AMBIENT[setting])
    assert found.keys() == expected.keys()
    differing = [name for name, value in found.items() if not torch.equal(value, expected[name])]
    assert differing == []


@cache
def reference(values: Callable[[Callable[[], AbstractContextManager[object]]], Values]) -> Values:
    """Return the values without any setting."""
    return values(torch.enable_grad)
