"""Every registered initializer, covariance and scale keeps its promise: new types must be added here."""

import hashlib
import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from mimetic.config.registry import registered
from mimetic.covariance.components import covariance_of
from mimetic.graph.site import Site
from mimetic.graph.sites import find_sites
from mimetic.initializers.config import FromNetwork
from mimetic.initializers.draw import ResolvedInit
from mimetic.models.build import build
from mimetic.models.config import Vit
from mimetic.plans.choose import draw

# Arguments other than the defaults, and a layer the initializer fits: its maker and that one's arguments.
Layer = tuple[object, ...]
INITS: dict[str, tuple[dict[str, object], Layer]] = {
    "keep": ({}, ("norm",)),
    "default": ({}, ("linear",)),
    "uniform": ({"a": -0.3, "b": 0.5}, ("linear",)),
    "normal": ({"mean": 0.2, "std": 0.05}, ("linear",)),
    "trunc_normal": ({"mean": 0.1, "std": 0.5, "a": -0.4, "b": 1.0}, ("linear",)),
    "scaled_residual": ({"layers": 12}, ("linear",)),
    "constant": ({"value": 0.3}, ("norm",)),
    "ones": ({}, ("norm",)),
    "zeros": ({}, ("norm",)),
    "eye": ({}, ("linear", 30, 50)),
    "dirac": ({"groups": 2}, ("conv",)),
    "xavier_uniform": ({"gain": 1.5}, ("conv",)),
    "xavier_normal": ({"gain": 1.5}, ("conv",)),
    "kaiming_uniform": ({"a": 0.2, "mode": "fan_out", "nonlinearity": "leaky_relu"}, ("conv",)),
    "kaiming_normal": ({"mode": "fan_in", "nonlinearity": "relu"}, ("conv",)),
    "orthogonal": ({"gain": 1.3}, ("conv",)),
    "sparse": ({"sparsity": 0.7, "std": 0.02}, ("linear",)),
    "impulse": ({"gain": 1.5}, ("conv",)),
    "box": ({"taps": 4}, ("conv",)),
    "gaussian_bump": ({"sigma": 0.8}, ("conv",)),
    "gaussian_derivatives": ({"sigma": 1.2, "order": 3}, ("conv",)),
}
LAYERWISE = [
    name
    for name, section in registered("init").items()
    if section.acts_on is None and not issubclass(section, FromNetwork)
]
"""Those that fill layers; composite sites, and beginnings from a trained network, have tests of their own."""

ATTENTIVE = [
    name for name, section in registered("init").items() if section.acts_on in {"attention", "position"}
]
SILENT = {"keep", "default"}
"""Those that promise no moments: nothing is drawn, or the law is the layer's own."""

COVARIANCES: dict[str, tuple[dict[str, object], Layer]] = {
    "closed_form": ({"width": 0.6, "padding": "zero", "psd": "clip"}, ("conv", 64, 64, 7, 64)),
    "identity": ({"variance": 0.3}, ("conv",)),
    "mixture": (
        {
            "parts": [
                {"share": 3.0, "covariance": {"type": "closed_form"}},
                {"covariance": {"type": "identity"}},
            ]
        },
        ("conv", 64, 64, 7, 64),
    ),
}
HARVESTED = {"filters", "nfm", "agop", "patches", "file", "learned"}
"""Covariances that come from a harvest; `test_harvests` draws from them."""

SCALES: dict[str, dict[str, object]] = {
    "none": {},
    "gain": {"gain": 0.5},
    "kaiming": {"nonlinearity": "tanh"},
    "xavier": {"gain": 2.0},
    "trace": {"trace": 3.0},
    "match_default": {},
    "study_compat": {},
}

# The first eight bytes of sha256 over the float32 values of seed 0.
GOLDEN = {
    "normal": "d6486efd76f6f786",
    "trunc_normal": "ab63859200928254",
    "uniform": "38f01e30fd15ac93",
    "kaiming_uniform": "f3b099a582528568",
    "orthogonal": "1fc24d663bc9500c",
    "sparse": "6cbd02fb6c1a46ff",
    "default": "10896cfa8e937f08",
    "closed_form": "94ab93a3950c2b03",
    "identity": "c83830d6c7af303e",
}


Case = tuple[dict[str, object], Site]


def case(make: SimpleNamespace, name: str) -> Case:
    """Return rule settings and a layer for a registered initializer or covariance."""
    family, (arguments, (maker, *sizes)) = (
        ("init", INITS[name]) if name in INITS else ("covariance", COVARIANCES[name])
    )
    return {family: {"type": name, **arguments}}, getattr(make, maker)(*sizes)


def drawn(make: SimpleNamespace, case: Case, seed: int = 0) -> tuple[ResolvedInit, torch.Tensor]:
    """Return the draw of a layer's weight and the tensor it samples."""
    settings, site = case
    found = draw(make.rule(**settings), site, ("weight",))
    return found, found.sample(make.keyed(seed), nn.Linear(200, 300))["weight"]


def check(found: ResolvedInit, weight: torch.Tensor) -> None:
    """Hold entries against their moments, within five standard errors or to rounding."""
    moments = found.moments["weight"]
    mean, rms = float(weight.double().mean()), float((weight.double() - moments.mean).square().mean().sqrt())
    error = 5.0 / math.sqrt(moments.draws) if moments.draws else 0.0
    size = max(abs(moments.mean), moments.std)
    assert moments.mean == pytest.approx(mean, abs=error * moments.std + 1e-6 * size)
    assert moments.std == pytest.approx(rms, abs=error * moments.std + 1e-6 * size)
    assert (weight.dtype, weight.is_contiguous(), weight.device.type) == (torch.float32, True, "cpu")


@pytest.mark.parametrize("name", [name for name in LAYERWISE if name not in SILENT])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_registered_init_has_its_moments(make: SimpleNamespace, name: str, seed: int) -> None:
    """Mean and rms deviation of the entries are the promised ones."""
    check(*drawn(make, case(make, name), seed))


@pytest.mark.parametrize("scale", [name for name in registered("scale") if name != "lsuv"])  # see test_lsuv
@pytest.mark.parametrize("name", [name for name in registered("covariance") if name not in HARVESTED])
def test_every_registered_covariance_has_its_moments_at_every_scale(
    make: SimpleNamespace, name: str, scale: str
) -> None:
    """Filters drawn from a covariance scatter as promised, whatever the scale."""
    settings, site = case(make, name)
    check(*drawn(make, ({**settings, "scale": {"type": scale, **SCALES[scale]}}, site)))


@pytest.mark.parametrize("name", [name for name in registered("covariance") if name not in HARVESTED])
def test_every_registered_covariance_is_that_of_its_filters(make: SimpleNamespace, name: str) -> None:
    """The second moment of many filters is the covariance, entry by entry."""
    settings, site = case(make, name)
    dense = covariance_of(make.rule(**settings).covariance, site).dense()
    found = draw(make.rule(**settings), site, ("weight",))
    weights = [found.sample(make.keyed(seed), nn.Identity())["weight"] for seed in range(40)]
    filters = torch.cat(weights).double().view(-1, len(dense))
    empirical = filters.T @ filters / len(filters)
    error = 5.0 * math.sqrt((dense.trace() ** 2 + dense.square().sum()) / len(filters))
    assert float((empirical - dense).norm()) < error < 2.0 * float(dense.norm())


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("uniform", stats.uniform(-0.3, 0.8)),
        ("normal", stats.norm(0.2, 0.05)),
        ("trunc_normal", stats.truncnorm(-1.0, 1.8, 0.1, 0.5)),
        ("xavier_normal", stats.norm(0.0, 1.5 * math.sqrt(2 / (12 * 25 + 64 * 25)))),
        ("kaiming_normal", stats.norm(0.0, math.sqrt(2 / (12 * 25)))),
        ("identity", stats.norm(0.0, math.sqrt(0.3))),
    ],
)
def test_entries_follow_the_law(make: SimpleNamespace, name: str, law: object) -> None:
    """A Kolmogorov-Smirnov test does not tell the entries from the law of that name."""
    _, weight = drawn(make, case(make, name))
    assert stats.kstest(weight.flatten().numpy(), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["uniform", "normal", "trunc_normal", "xavier_uniform", "kaiming_uniform"])
def test_values_are_those_of_torch(make: SimpleNamespace, name: str) -> None:
    """The tensor is what torch's function of that name makes of the keyed generator, in float64."""
    _, weight = drawn(make, case(make, name))
    expected = torch.empty(weight.shape, dtype=torch.float64)
    getattr(nn.init, f"{name}_")(expected, **INITS[name][0], generator=make.keyed()("weight", "values"))
    assert torch.equal(expected.float(), weight)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_draws(make: SimpleNamespace, name: str) -> None:
    """The bits of seed 0 do not change between versions, machines or numbers of threads."""
    _, weight = drawn(make, case(make, name))
    assert hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16] == GOLDEN[name]


@pytest.mark.parametrize(
    "name", [*LAYERWISE, *(name for name in registered("covariance") if name not in HARVESTED)]
)
def test_draws_are_pure(make: SimpleNamespace, name: str) -> None:
    """Resolving and sampling leave the layer and the global stream as they were, and repeat exactly."""
    settings, site = case(make, name)
    layer = nn.Linear(200, 300)
    before, state = layer.weight.clone(), torch.get_rng_state()
    found = draw(make.rule(**settings), site, ("weight",))
    first = found.sample(make.keyed(), layer)
    torch.rand(3)
    state_between = torch.get_rng_state()
    second = found.sample(make.keyed(), layer)
    assert torch.equal(state_between, torch.get_rng_state())
    assert torch.equal(before, layer.weight)
    assert not torch.equal(state, state_between)
    assert {key: value.tolist() for key, value in first.items()} == {
        key: value.tolist() for key, value in second.items()
    }


BANKS = ["impulse", "box", "gaussian_bump", "gaussian_derivatives"]
RANDOM = ["normal", "uniform", "orthogonal", "sparse", "default", "closed_form", "identity", *BANKS]


@pytest.mark.parametrize("name", RANDOM)
def test_draws_depend_on_seed_and_name(make: SimpleNamespace, name: str) -> None:
    """Another seed, or another layer's name, gives other values."""
    settings, site = case(make, name)
    found = draw(make.rule(**settings), site, ("weight",))
    layer = nn.Linear(200, 300)
    weights = [
        found.sample(streams, layer)["weight"]
        for streams in (make.keyed(0), make.keyed(1), make.keyed(0, "blocks.2"))
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", ["normal", "default"])
def test_draws_do_not_depend_on_other_parameters(make: SimpleNamespace, name: str) -> None:
    """The weight is the same whether the rule claims the bias as well or not."""
    settings, site = case(make, name)
    layer = nn.Linear(200, 300)
    both = draw(make.rule(**settings), site, ("weight", "bias")).sample(make.keyed(), layer)
    bias = draw(make.rule(**settings), site, ("bias",)).sample(make.keyed(), layer)
    weight = draw(make.rule(**settings), site, ("weight",)).sample(make.keyed(), layer)
    assert set(both) == {"weight", "bias"}
    assert torch.equal(both["weight"], weight["weight"])
    assert torch.equal(both["bias"], bias["bias"])


@pytest.mark.parametrize("name", ATTENTIVE)
def test_draws_of_composite_sites_are_pure(make: SimpleNamespace, name: str) -> None:
    """They leave the layer and the global stream as they were, repeat exactly, and keep their moments."""
    sizes = {"width": 24, "depth": 1, "heads": 4, "patch_size": 4, "image_size": 16}
    model = build(Vit(**sizes), in_channels=3, num_classes=5, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kind = registered("init")[name].acts_on
    site = next(site for site in find_sites(model).composites if site.kind == kind)
    found = draw(make.rule(init=name), site, tuple(p.local for p in site.parameters))
    layer, state = model.get_submodule(site.layer), torch.get_rng_state()
    first, second = (found.sample(make.keyed(0, site.layer), layer) for _ in range(2))

    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert {key: value.tolist() for key, value in first.items()} == {
        key: value.tolist() for key, value in second.items()
    }
    for local, value in first.items():
        shape = site.parameter(local).shape
        assert (value.dtype, value.is_contiguous(), tuple(value.shape)) == (torch.float32, True, shape)
        if local in found.moments:
            assert float(value.std()) == pytest.approx(found.moments[local].std, rel=0.2)
