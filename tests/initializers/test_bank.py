"""Banks of simple filters: their shapes, their energy, and where they cannot be drawn."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mimetic.errors import UserError
from mimetic.initializers.bank import derivative_basis

BANKS = ["impulse", "box", "gaussian_bump", "gaussian_derivatives"]


def bank(make: SimpleNamespace, spec: dict[str, object], *sizes: int) -> Tensor:
    """Return the weight a bank draws for a convolution."""
    found = make.resolve(make.rule(init=spec), make.conv(*sizes), ("weight",))
    return found.sample(make.keyed(), nn.Identity())["weight"].double()


@pytest.mark.parametrize("name", BANKS)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4))
def test_energy_is_that_of_the_default(
    make: SimpleNamespace, name: str, inputs: int, outputs: int, half: int
) -> None:
    """Every filter has squared norm 1/3, that of U(±1/sqrt(C_in·k²)), in equal parts on its channels."""
    spec = {"type": name, **({"energy": "filter"} if name == "gaussian_bump" else {})}
    weight = bank(make, spec, inputs, outputs, 2 * half + 1, 1)

    expected = torch.full((outputs, inputs), 1.0 / (3.0 * inputs), dtype=torch.float64)

    torch.testing.assert_close(weight.square().sum((2, 3)), expected)


@pytest.mark.parametrize(("spec", "taps"), [({"type": "impulse"}, 1), ({"type": "box", "taps": 4}, 4)])
def test_taps_are_equal_and_anywhere(make: SimpleNamespace, spec: dict[str, object], taps: int) -> None:
    """A channel has so many taps of one height; each pixel and each sign comes up as often as another."""
    weight = bank(make, spec, 40, 50, 3, 1)
    there = weight != 0

    assert [taps] == there.sum((2, 3)).unique().tolist()
    assert len(weight.abs().max(3).values.max(2).values.unique()) == 1
    share = there.double().mean((0, 1))
    assert share.sub(taps / 9).abs().max() < 5 * (taps / 9 / 2000) ** 0.5
    assert abs((weight.sum((2, 3)) > 0).double().mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_bump_is_a_gaussian_around_a_pixel(make: SimpleNamespace) -> None:
    """Neighbours of the highest tap are lower by exp(−1/2s), diagonal ones by its square; s is a variance."""
    weight = bank(make, {"type": "gaussian_bump", "variance": 0.64}, 1, 200, 5, 1).abs()[:, 0]
    inside = weight[weight.flatten(1).argmax(1) == 12]

    fall = torch.exp(torch.tensor(-0.5 / 0.64, dtype=torch.float64)).expand(len(inside))

    assert len(inside) > 1
    torch.testing.assert_close(inside[:, 2, 3] / inside[:, 2, 2], fall, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(inside[:, 1, 3] / inside[:, 2, 2], fall.square(), rtol=1e-5, atol=0.0)


def test_the_energy_of_bumps_is_that_of_the_bank(make: SimpleNamespace) -> None:
    """As published, the mean of ‖f‖² is 1/3, and bumps that the border cuts off are weaker."""
    weight = bank(make, {"type": "gaussian_bump", "variance": 2.0}, 1, 200, 5, 1)[:, 0]
    energies = weight.square().sum((1, 2))
    corner = weight.flatten(1).abs().argmax(1) == 0
    centre = weight.flatten(1).abs().argmax(1) == 12

    assert float(energies.mean()) == pytest.approx(1 / 3, rel=1e-6)
    assert float(energies[corner].mean()) < 0.5 * float(energies[centre].mean())
    torch.testing.assert_close(weight.abs().amax((1, 2)), weight.abs().max().expand(200))


def test_derivatives_are_those_of_a_gaussian() -> None:
    """Orders up to two make six members: even, odd and mixed, as finite differences of the Gaussian show."""
    members = derivative_basis((41, 41), sigma=6.0, order=2).view(6, 41, 41)
    gaussian = members[0]

    def unit(x: Tensor) -> Tensor:
        return x / x.norm()

    (along_y,) = torch.gradient(gaussian, dim=0)
    (along_x,) = torch.gradient(gaussian, dim=1)
    (twice,) = torch.gradient(along_x, dim=1)
    (mixed,) = torch.gradient(along_y, dim=1)
    # In order of (y, x): 00, 01, 02, 10, 11, 20.
    for index, derivative in {1: along_x, 2: twice, 3: along_y, 4: mixed}.items():
        assert abs((unit(derivative) * members[index]).sum()) > 0.995


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_members_that_vanish_are_left_out(order: int) -> None:
    """On a single pixel only even orders are something."""
    assert order // 2 + 1 == len(derivative_basis((1,), sigma=1.0, order=order))


@pytest.mark.parametrize(
    ("spec", "site", "message"),
    [
        ({"type": "impulse"}, "linear", "impulse fills the filters of convolutions"),
        ({"type": "box", "taps": 26}, "conv", "box with 26 taps does not fit into kernels of 25"),
    ],
)
def test_what_does_not_fit(make: SimpleNamespace, spec: dict[str, object], site: str, message: str) -> None:
    """A layer without a kernel, or with too small a one, is refused by name."""
    with pytest.raises(UserError, match=f"^blocks.1.weight: {message}"):
        make.resolve(make.rule(init=spec), getattr(make, site)(), ("weight",))
