"""Distributions of one tensor: fans of transposed layouts, closed-form moments and refusals."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from mimetic.errors import UserError
from mimetic.initializers.normal import trunc_normal_moments


@pytest.mark.parametrize("name", ["kaiming_normal", "xavier_uniform", "orthogonal", "eye"])
def test_input_first_matrices_are_drawn_as_a_linear_layers(make: SimpleNamespace, name: str) -> None:
    """GPT-2's Conv1D gets the values of the equivalent linear layer, transposed and contiguous."""
    plain = make.resolve(make.rule(init=name), make.linear(), ("weight",))
    turned = make.resolve(make.rule(init=name), make.conv1d_of_gpt2(), ("weight",))
    weight = turned.sample(make.keyed(), nn.Identity())["weight"]
    assert torch.equal(plain.sample(make.keyed(), nn.Identity())["weight"].T, weight)
    assert weight.is_contiguous()
    assert plain.moments == turned.moments


def test_transposed_convolutions_have_the_fans_of_torch(make: SimpleNamespace) -> None:
    """Torch reads a transposed convolution's fans from its stored weight, and so do we."""
    found = make.resolve(make.rule(init="kaiming_normal"), make.conv_transpose(), ("weight",))
    layer = nn.ConvTranspose2d(6, 8, 3, 2, groups=2)
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    assert found.sample(make.keyed(), layer)["weight"].shape == layer.weight.shape
    assert math.sqrt(2 / fan_in) == pytest.approx(found.moments["weight"].std)


def test_each_parameter_has_its_own_stream(make: SimpleNamespace) -> None:
    """Weight and bias of one rule are drawn from the streams of their own names."""
    drawn = make.resolve(make.rule(init="normal"), make.linear(), ("weight", "bias")).sample(
        make.keyed(), nn.Identity()
    )
    expected = torch.randn(300, generator=make.keyed()("bias", "values"), dtype=torch.float64)
    assert set(drawn) == {"weight", "bias"}
    assert torch.equal(expected.float(), drawn["bias"])


@pytest.mark.parametrize(
    ("mean", "std", "lower", "upper"),
    [(0.0, 1.0, -2.0, 2.0), (0.0, 0.02, -2.0, 2.0), (0.5, 1.0, 0.0, 0.4), (-1.0, 0.5, 0.0, 3.0)],
)
def test_trunc_normal_moments(mean: float, std: float, lower: float, upper: float) -> None:
    """The closed form agrees with scipy."""
    reference = stats.truncnorm((lower - mean) / std, (upper - mean) / std, mean, std)
    expected = (float(reference.mean()), float(reference.std()))
    assert expected == pytest.approx(trunc_normal_moments(mean, std, lower=lower, upper=upper), rel=1e-9)


def test_trunc_normal_over_a_sliver_is_flat() -> None:
    """Between bounds that nearly touch the distribution is uniform, without cancellation."""
    moments = trunc_normal_moments(0.0, 1.0, lower=0.5, upper=0.5 + 1e-9)
    assert moments == pytest.approx((0.5, 1e-9 / math.sqrt(12)), rel=1e-6)


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        ({"type": "trunc_normal", "a": 1.0, "b": 1.0}, "a < b"),
        ({"type": "trunc_normal", "a": 3.0, "b": 4.0}, "outside"),
        ({"type": "uniform", "a": 1.0, "b": 0.0}, "a ≤ b"),
    ],
)
def test_contradicting_bounds_are_refused(
    make: SimpleNamespace, init: dict[str, object], problem: str
) -> None:
    """Bounds that leave nothing to draw are an error that names the parameter."""
    with pytest.raises(UserError, match=rf"blocks\.1\.weight: .*{problem}"):
        make.resolve(make.rule(init=init), make.linear(), ("weight",))


@pytest.mark.parametrize("name", ["kaiming_normal", "xavier_uniform", "orthogonal", "eye", "dirac"])
def test_vectors_have_no_fans(make: SimpleNamespace, name: str) -> None:
    """What needs a matrix or filters says so for a bias, with the repair."""
    with pytest.raises(UserError, match=rf"blocks\.1\.bias: {name} needs .*\(300,\).*param: weight"):
        make.resolve(make.rule(init=name), make.linear(), ("bias",))


def test_dirac_groups_must_divide(make: SimpleNamespace) -> None:
    """Seven groups do not divide 64 channels."""
    with pytest.raises(UserError, match="groups 7"):
        make.resolve(make.rule(init={"type": "dirac", "groups": 7}), make.conv(), ("weight",))


def test_dirac_passes_channels_through(make: SimpleNamespace) -> None:
    """A convolution with Dirac filters returns its input."""
    found = make.resolve(make.rule(init="dirac"), make.conv(8, 8, 3), ("weight",))
    images = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    weight = found.sample(make.keyed(), nn.Identity())["weight"]
    assert torch.equal(images, nn.functional.conv2d(images, weight, padding=1))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 4), (6, 2, 3, 3), (1, 1)])
def test_orthogonal_rows_or_columns(make: SimpleNamespace, shape: tuple[int, ...]) -> None:
    """The shorter side is orthonormal up to the gain, and the energy is deterministic."""
    rule = make.rule(init={"type": "orthogonal", "gain": 2.0})
    found = make.resolve(rule, make.site("other", None, weight=shape))
    weight = found.sample(make.keyed(), nn.Identity())["weight"].double()
    flat = weight.flatten(1)
    gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    assert torch.allclose(4.0 * torch.eye(len(gram), dtype=torch.float64), gram, atol=1e-6)
    assert found.moments["weight"].std == pytest.approx(float(weight.square().mean().sqrt()))
    assert found.moments["weight"].draws >= 1.0


def test_sparse_columns_have_their_zeros(make: SimpleNamespace) -> None:
    """Each column has ceil(sparsity·rows) zeros, also when everything is zero."""
    site = make.site("other", None, weight=(7, 4))
    half, everything = (
        make.resolve(make.rule(init={"type": "sparse", "sparsity": sparsity}), site)
        for sparsity in (0.5, 1.0)
    )
    weight = half.sample(make.keyed(), nn.Identity())["weight"]
    assert (weight == 0).sum(dim=0).tolist() == [4, 4, 4, 4]
    assert (everything.moments["weight"].std, everything.moments["weight"].draws) == (0.0, 0.0)


def test_constant_distributions_are_deterministic(make: SimpleNamespace) -> None:
    """An empty interval is a constant: no draws, and the spread must match to rounding."""
    site = make.site("other", None, weight=(3, 3))
    flat = make.resolve(make.rule(init={"type": "uniform", "a": 0.5, "b": 0.5}), site)
    eye = make.resolve(make.rule(init="eye"), site)
    assert flat.moments["weight"].draws == 0.0
    assert eye.moments["weight"].mean == pytest.approx(1 / 3)


def test_empty_tensors_are_drawn_empty(make: SimpleNamespace) -> None:
    """A parameter without entries stays as it is, without a warning."""
    empty = make.site("other", None, weight=(0, 4))
    drawn = make.resolve(make.rule(init="kaiming_normal"), empty, ("weight",)).sample(
        make.keyed(), nn.Identity()
    )
    assert drawn["weight"].shape == (0, 4)


def test_rules_that_only_freeze_keep_the_values(make: SimpleNamespace) -> None:
    """Without `init` and `covariance` nothing is drawn."""
    found = make.resolve(make.rule(freeze=True), make.linear(), ("weight",))
    assert (found.name, found.sample(make.keyed(), nn.Identity())) == ("keep", {})
