"""Layers by hand, rules and keyed streams, for tests of initializers that need no model."""

from types import SimpleNamespace

import pytest

from mimetic.covariance.context import NO_HARVESTS, Context, Harvests
from mimetic.graph.site import Geometry, Parameter, Site
from mimetic.initializers.resolved import ResolvedInit, Streams
from mimetic.plans.choose import resolve_init
from mimetic.recipe.rule import Rule

LAYER = "blocks.1"


def site(kind: str, geometry: Geometry | None, **shapes: tuple[int, ...]) -> Site:
    """Return a layer of a kind, half way up, with parameters of given shapes."""
    parameters = tuple(Parameter(f"{LAYER}.{n}", n, shape, "float32") for n, shape in shapes.items())
    return Site(LAYER, kind, ("Layer",), geometry, parameters, 0.5)


def linear(inputs: int = 200, outputs: int = 300) -> Site:
    """Return a linear layer with a bias."""
    return site("linear", Geometry(inputs, outputs), weight=(outputs, inputs), bias=(outputs,))


def conv1d_of_gpt2(inputs: int = 200, outputs: int = 300) -> Site:
    """Return the same layer stored input first."""
    geometry = Geometry(inputs, outputs, transposed=True)
    return site("linear", geometry, weight=(inputs, outputs), bias=(outputs,))


def conv(inputs: int = 12, outputs: int = 64, side: int = 5, groups: int = 1) -> Site:
    """Return a convolution layer with a bias."""
    kind = "depthwise_conv" if groups == inputs > 1 else "conv"
    geometry = Geometry(inputs, outputs, (side, side), (1, 1), groups)
    return site(kind, geometry, weight=(outputs, inputs // groups, side, side), bias=(outputs,))


def conv_transpose(inputs: int = 6, outputs: int = 8, groups: int = 2) -> Site:
    """Return a transposed convolution layer."""
    geometry = Geometry(inputs, outputs, (3, 3), (2, 2), groups, transposed=True)
    return site("conv_transpose", geometry, weight=(inputs, outputs // groups, 3, 3))


def norm(channels: int = 64) -> Site:
    """Return a norm layer."""
    return site("norm", None, weight=(channels,), bias=(channels,))


def rule(**settings: object) -> Rule:
    """Return a rule that matches anything."""
    return Rule.model_validate({"id": "rule", "match": {"layer": ".*", "param": ".*"}, **settings})


class Names(dict[str, str]):
    """Canonical names of all parameters of a layer."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def __missing__(self, local: str) -> str:
        return f"{self.layer}.{local}"


def keyed(seed: int = 0, layer: str = LAYER) -> Streams:
    """Return the streams of a layer's parameters."""
    return Streams(seed, layer, Names(layer))


def resolve(
    rule: Rule, site: Site, parameters: tuple[str, ...] = ("weight",), harvests: Harvests = NO_HARVESTS
) -> ResolvedInit:
    """Return the initializer of a rule for parameters of a site."""
    return resolve_init(rule, site, Context(parameters, harvests))


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Return the functions that make layers, rules and streams."""
    makers = (site, linear, conv1d_of_gpt2, conv, conv_transpose, norm, rule, keyed, resolve)
    return SimpleNamespace(**{maker.__name__: maker for maker in makers})
