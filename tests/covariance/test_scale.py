"""Scales: the trace of one whole filter, for every registered scale."""

import math

import pytest
import torch
from torch import nn

import mimetic.recipe  # noqa: F401  registers the types
from mimetic.config.registry import registered
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.scale import fans, kaiming, repeats, scaled
from mimetic.errors import UserError
from mimetic.graph.site import Geometry

CONV = Geometry(6, 8, (3, 3), (1, 1), groups=2)
DEPTHWISE = Geometry(8, 8, (7, 7), (1, 1), groups=8)
LINEAR = Geometry(12, 5)
RAW = closed_form((3, 3), 0.7).trace

# Trace of one filter of CONV, of 3 channels × 9 pixels, from a spatial closed form.
EXPECTED = {
    "none": ({}, 3 * RAW),
    "gain": ({"gain": 2.0}, 3 * RAW * 4.0),
    "kaiming": ({"mode": "fan_out", "nonlinearity": "linear"}, 27 / 72),
    "xavier": ({}, 2 * 27 / (27 + 72)),
    "trace": ({"trace": 5.0}, 5.0),
    "match_default": ({}, 1 / 3),
    "lsuv": ({}, 3 * RAW),  # until the outputs are seen
    "kaiming_nfm": ({"divisor": 100.0}, 3 * RAW * math.sqrt(2 / 27) / 100),
}


@pytest.mark.parametrize("name", registered("scale"))
def test_every_registered_scale_gives_its_trace(name: str) -> None:
    """Each scale sets the expected energy of one filter; a new scale must be added here."""
    arguments, trace = EXPECTED[name]
    spec = registered("scale")[name](**arguments)
    cov = scaled(closed_form((3, 3), 0.7), spec, CONV)
    drawn = cov.sample(3 * 20_000, torch.Generator().manual_seed(0)).view(20_000, 27)
    assert trace == pytest.approx(repeats(cov, CONV) * cov.trace)
    assert trace == pytest.approx(float(drawn.square().sum(dim=1).mean()), rel=0.02)


@pytest.mark.parametrize("name", registered("scale"))
def test_every_registered_scale_takes_a_gain(name: str) -> None:
    """A gain of 3 multiplies the weights by 3, after whatever the scale does."""
    arguments = {"gain": 1.0, **EXPECTED[name][0]}
    plain = registered("scale")[name](**arguments)
    large = plain.model_copy(update={"gain": 3.0 * plain.gain})
    small = scaled(closed_form((3, 3), 0.7), plain, CONV)
    assert 9.0 * small.trace == pytest.approx(scaled(closed_form((3, 3), 0.7), large, CONV).trace)


def test_kaiming_gives_the_average_weight_two_over_fan_in() -> None:
    """The mean variance of a depthwise weight is 2/49 at any shape of the covariance."""
    spec = registered("scale")["kaiming"]()
    cov = scaled(closed_form((7, 7), 0.4), spec, DEPTHWISE)
    assert pytest.approx(float(cov.dense().diagonal().mean())) == 2 / 49


def test_match_default_has_the_energy_of_torch() -> None:
    """A filter has the energy of one that torch's own default draws."""
    torch_energy = float(nn.Conv2d(8, 8, 7, groups=8, device="meta").weight[0].numel()) / (3 * 49)
    spec = registered("scale")["match_default"]()
    assert torch_energy == pytest.approx(scaled(closed_form((7, 7), 0.4), spec, DEPTHWISE).trace)


def test_whole_filter_covariances_are_not_repeated() -> None:
    """A covariance over all channels is drawn once per filter."""
    full = Covariance(torch.eye(27, dtype=torch.float64), PatchGeometry(3, (3, 3)))
    spec = registered("scale")["trace"](trace=2.0)
    assert repeats(full, CONV) == 1
    assert scaled(full, spec, CONV).trace == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("geometry", "layer"),
    [
        (CONV, nn.Conv2d(6, 8, 3, groups=2)),
        (LINEAR, nn.Linear(12, 5)),
        (
            Geometry(6, 8, (3, 3), (2, 2), groups=2, transposed=True),
            nn.ConvTranspose2d(6, 8, 3, 2, groups=2),
        ),
    ],
)
def test_fans_are_those_of_torch(geometry: Geometry, layer: nn.Module) -> None:
    """Fans are the ones torch computes from the stored weight."""
    assert nn.init._calculate_fan_in_and_fan_out(layer.weight) == fans(geometry)


def test_conv1d_of_gpt2_has_the_fans_of_a_linear_layer() -> None:
    """The input-first layout does not swap the fans."""
    assert fans(Geometry(12, 5, transposed=True)) == fans(LINEAR)


def test_zero_covariances_cannot_be_scaled() -> None:
    """Nothing makes a zero covariance large; leaving it is allowed."""
    zero = Covariance(torch.zeros(1, 9, dtype=torch.float64), PatchGeometry(1, (3, 3)))
    with pytest.raises(UserError, match="zero"):
        scaled(zero, registered("scale")["trace"](), CONV)
    assert scaled(zero, registered("scale")["none"](), CONV).trace == 0.0


@pytest.mark.parametrize("patch", [PatchGeometry(1, (5, 5)), PatchGeometry(2, (3, 3)), PatchGeometry(27)])
def test_other_filters_are_refused(patch: PatchGeometry) -> None:
    """The message shows both geometries."""
    cov = Covariance(torch.eye(patch.size, dtype=torch.float64), patch)
    with pytest.raises(UserError, match=f"{patch} does not fit filters 3×3×3"):
        scaled(cov, registered("scale")["none"](), CONV)


def test_nonlinearities_have_torch_gains() -> None:
    """The gain of a nonlinearity enters squared."""
    spec = registered("scale")["kaiming"](nonlinearity="tanh")
    assert pytest.approx(kaiming(spec, LINEAR, 1.0)) == (5 / 3) ** 2
    assert math.isclose(kaiming(registered("scale")["kaiming"](), LINEAR, 1.0), 2.0)
