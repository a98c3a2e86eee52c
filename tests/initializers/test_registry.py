"""Every registered initializer, covariance and scale has its moments: sections say how to build an example.

A component of a plug-in is tested like a built-in one, without an edit here.
"""

import hashlib
import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from mimetic.config.registry import registered
from mimetic.covariance.components import covariance_of
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.graph.sites import find_sites
from mimetic.initializers.resolved import ResolvedInit
from mimetic.models.build import build
from mimetic.models.config import Mamba, Vit
from mimetic.plans.choose import filled_parameters
from mimetic.recipe.rule import Rule

INITS = registered("init")
LAYERWISE = [name for name, s in INITS.items() if s.acts_on is None and s.takes is None]
"""Those that fill layers; initializers from a trained network have separate tests."""

COMPOSITE = [name for name, section in INITS.items() if section.acts_on is not None]
SILENT = {"keep", "default", "rows"}
"""Built-in ones without moments: nothing is drawn, or the distribution is the layer's own, or its values'."""

COVARIANCES = [name for name, s in registered("covariance").items() if s.takes is None and name != "file"]
"""Those that need no harvest; `test_harvests` draws from the others."""

SCALES = [name for name, section in registered("scale").items() if "finish" not in section.functions]
"""Those that fix the size of the filters; what runs the network has separate tests."""

# Arguments other than the defaults, for what a default does not show.
ARGUMENTS: dict[str, dict[str, object]] = {
    "uniform": {"a": -0.3, "b": 0.5},
    "normal": {"mean": 0.2, "std": 0.05},
    "trunc_normal": {"mean": 0.1, "std": 0.5, "a": -0.4, "b": 1.0},
    "dirac": {"groups": 2},
    "xavier_uniform": {"gain": 1.5},
    "xavier_normal": {"gain": 1.5},
    "kaiming_uniform": {"a": 0.2, "mode": "fan_out", "nonlinearity": "leaky_relu"},
    "kaiming_normal": {"mode": "fan_in", "nonlinearity": "relu"},
    "orthogonal": {"gain": 1.3},
    "sparse": {"sparsity": 0.7, "std": 0.02},
    "impulse": {"gain": 1.5},
    "box": {"taps": 4},
    "gaussian_bump": {"variance": 0.64},
    "gaussian_derivatives": {"sigma": 1.2, "order": 3},
    "closed_form": {"width": 0.6, "padding": "zero", "psd": "clip"},
    "identity": {"variance": 0.3},
    "mixture": {
        "components": [{"weight": 3.0, "covariance": {"type": "closed_form"}}, {"covariance": "identity"}]
    },
    "gain": {"gain": 0.5},
    "kaiming": {"nonlinearity": "tanh"},
    "xavier": {"gain": 2.0},
    "trace": {"trace": 3.0},
}
LINEAR = {"uniform", "normal", "trunc_normal", "sparse", "default"}
DEPTHWISE = ("closed_form", "mixture")
"""Cases of a linear layer, and of a depthwise convolution: values are pinned. Others are tried in turn."""

# The first eight bytes of sha256 over the float32 values of seed 0.
GOLDEN = {
    "normal": "d6486efd76f6f786",
    "trunc_normal": "ab63859200928254",
    "uniform": "38f01e30fd15ac93",
    "kaiming_uniform": "f3b099a582528568",
    "orthogonal": "1fc24d663bc9500c",
    "sparse": "6cbd02fb6c1a46ff",
    "default": "4cbfd397de48c833",
    "closed_form": "94ab93a3950c2b03",
    "identity": "c83830d6c7af303e",
}


Case = tuple[Rule, Site]


def settings(family: str, name: str, *, example: bool = False) -> dict[str, object]:
    """Return a component's map: with the example of its section, or with arguments that are no defaults."""
    arguments = registered(family)[name].example if example or name not in ARGUMENTS else ARGUMENTS[name]
    return {"type": name, **arguments}


def case(make: SimpleNamespace, name: str, *, example: bool = False, **more: object) -> Case:
    """Return a rule for an initializer or a covariance, and the first kind of layer that takes it."""
    family = "init" if name in INITS else "covariance"
    rule = make.rule(**{family: settings(family, name, example=example)}, **more)
    if name in DEPTHWISE:
        return rule, make.conv(64, 64, 7, 64)
    layers = (make.linear(), make.conv()) if name in LINEAR else (make.conv(), make.linear(), make.norm())
    refusals = []
    for site in layers:
        try:
            make.resolve(rule, site)
        except UserError as error:
            refusals.append(str(error))
            continue
        return rule, site
    pytest.fail(f"{name} takes neither a convolution, nor a linear layer, nor a norm: {refusals}")


def drawn(make: SimpleNamespace, case: Case, seed: int = 0) -> tuple[ResolvedInit, torch.Tensor]:
    """Return the initializer of a layer's weight and the tensor it samples."""
    found = make.resolve(*case)
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
@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_registered_init_has_its_moments(
    make: SimpleNamespace, name: str, example: bool, seed: int
) -> None:
    """Mean and rms deviation of the entries are the expected ones."""
    check(*drawn(make, case(make, name, example=example), seed))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", COVARIANCES)
def test_every_registered_covariance_has_its_moments_at_every_scale(
    make: SimpleNamespace, name: str, scale: str
) -> None:
    """Filters drawn from a covariance vary as expected, whatever the scale."""
    check(*drawn(make, case(make, name, scale=settings("scale", scale))))


@pytest.mark.parametrize("name", COVARIANCES)
def test_every_registered_covariance_is_that_of_its_filters(make: SimpleNamespace, name: str) -> None:
    """The second moment of many filters is the covariance, entry by entry."""
    rule, site = case(make, name)
    dense = covariance_of(rule.covariance, site).dense()
    found = make.resolve(rule, site)
    weights = [found.sample(make.keyed(seed), nn.Identity())["weight"] for seed in range(40)]
    filters = torch.cat(weights).double().view(-1, len(dense))
    empirical = filters.T @ filters / len(filters)
    error = 5.0 * math.sqrt((dense.trace() ** 2 + dense.square().sum()) / len(filters))
    assert float((empirical - dense).norm()) < error < 2.0 * float(dense.norm())


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("uniform", stats.uniform(-0.3, 0.8)),
        ("normal", stats.norm(0.2, 0.05)),
        ("trunc_normal", stats.truncnorm(-1.0, 1.8, 0.1, 0.5)),
        ("xavier_normal", stats.norm(0.0, 1.5 * math.sqrt(2 / (12 * 25 + 64 * 25)))),
        ("kaiming_normal", stats.norm(0.0, math.sqrt(2 / (12 * 25)))),
        ("identity", stats.norm(0.0, math.sqrt(0.3))),
    ],
)
def test_entries_follow_the_distribution(make: SimpleNamespace, name: str, distribution: object) -> None:
    """A Kolmogorov-Smirnov test does not reject the distribution of that name."""
    _, weight = drawn(make, case(make, name))
    assert stats.kstest(weight.flatten().numpy(), distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["uniform", "normal", "trunc_normal", "xavier_uniform", "kaiming_uniform"])
def test_values_are_those_of_torch(make: SimpleNamespace, name: str) -> None:
    """The tensor is what torch's function of that name makes of the keyed generator, in float64."""
    _, weight = drawn(make, case(make, name))
    expected = torch.empty(weight.shape, dtype=torch.float64)
    getattr(nn.init, f"{name}_")(expected, **ARGUMENTS[name], generator=make.keyed()("weight", "values"))
    assert torch.equal(expected.float(), weight)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_draws(make: SimpleNamespace, name: str) -> None:
    """The bits of seed 0 do not change between versions, machines or numbers of threads."""
    _, weight = drawn(make, case(make, name))
    assert hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16] == GOLDEN[name]


@pytest.mark.parametrize("name", [*LAYERWISE, *COVARIANCES])
def test_draws_are_pure(make: SimpleNamespace, name: str) -> None:
    """Resolving and sampling leave the layer and the global stream as they were, and repeat exactly."""
    rule, site = case(make, name, example=True)
    layer = nn.Linear(200, 300)
    before, state = layer.weight.clone(), torch.get_rng_state()
    found = make.resolve(rule, site)
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
RANDOM = ["rows", "normal", "uniform", "orthogonal", "sparse", "default", "closed_form", "identity", *BANKS]


@pytest.mark.parametrize("name", RANDOM)
def test_draws_depend_on_seed_and_name(make: SimpleNamespace, name: str) -> None:
    """Another seed, or another layer's name, gives other values."""
    rule, site = case(make, name)
    found = make.resolve(rule, site)
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
    rule, site = case(make, name)
    layer = nn.Linear(200, 300)
    both = make.resolve(rule, site, ("weight", "bias")).sample(make.keyed(), layer)
    bias = make.resolve(rule, site, ("bias",)).sample(make.keyed(), layer)
    weight = make.resolve(rule, site, ("weight",)).sample(make.keyed(), layer)
    assert set(both) == {"weight", "bias"}
    assert torch.equal(both["weight"], weight["weight"])
    assert torch.equal(both["bias"], bias["bias"])


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    """Return small networks that together have every kind of composite site."""
    vit = Vit(width=24, depth=1, heads=4, patch_size=4, image_size=16)
    mamba = Mamba(depth=1)
    return [build(spec, in_channels=3, num_classes=5, seed=0) for spec in (vit, mamba)]


@pytest.mark.parametrize("name", COMPOSITE)
def test_draws_of_composite_sites_are_pure(
    make: SimpleNamespace, name: str, networks: list[nn.Module]
) -> None:
    """They leave the layer and the global stream as they were, repeat exactly, and have their moments."""
    rule = make.rule(init=settings("init", name, example=True))
    model, site = next((m, s) for m in networks for s in find_sites(m).composites if s.kind == rule.acts_on)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    filled = filled_parameters(rule, site)
    found = make.resolve(rule, site, tuple(p.local for p in site.parameters if p.local in filled))
    layer, state = model.get_submodule(site.layer.removesuffix("pos_embed")), torch.get_rng_state()
    first, second = (found.sample(make.keyed(0, site.layer), layer) for _ in range(2))

    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert {key: value.tolist() for key, value in first.items()} == {
        key: value.tolist() for key, value in second.items()
    }
    assert set(first) == (filled if found.network_init is None else set())
    for local, value in first.items():
        shape = site.parameter(local).shape
        assert (value.dtype, value.is_contiguous(), tuple(value.shape)) == (torch.float32, True, shape)
        if local in found.moments:
            moments = found.moments[local]
            error = 6.0 / math.sqrt(moments.draws) if moments.draws else 1e-6
            assert float(value.std(correction=0)) == pytest.approx(moments.std, rel=error, abs=1e-12)
