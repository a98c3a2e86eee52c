"""Banks of simple filters: impulses, boxes, Gaussian bumps, derivatives of a Gaussian.

Random features for frozen banks. Each channel of each filter draws its own shape and sign, and has the
squared norm 1/(3·C_in): a filter has exactly the energy of PyTorch's default U(±1/sqrt(C_in·k²)); bumps have
it on average over the bank. Impulse, box and bump are those of the frozen-filter ConvMixers of Zheng, Li and
Lucey (arXiv 2401.12511), there depthwise; random signs are ours. Derivatives of a Gaussian are the basis of
structured receptive fields (Jacobsen et al., arXiv 1605.02971).
"""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Generator, Tensor

from mimetic.errors import UserError
from mimetic.initializers import config
from mimetic.initializers.distributions import Distribution, Shape, per_tensor
from mimetic.initializers.resolved import Moments

ENERGY = 1.0 / 3.0
"""Squared norm of a filter under PyTorch's default initialization."""

_SIDES = (3, 4, 5)

_ZERO = 1e-9
"""Norm up to which a member is zero on the kernel's pixels."""

Shapes = Callable[[Generator], Tensor]
"""Draws the shapes of all slices (slices, taps), of any norm."""


@per_tensor
def impulse(spec: config.Impulse, shape: Shape) -> Distribution:
    """One random tap."""
    slices, taps = _counts(spec, shape)
    return _bank(spec, shape, lambda stream: _taps(slices, taps, 1, stream), sharing=1)


@per_tensor
def box(spec: config.Box, shape: Shape) -> Distribution:
    """Several random taps of equal height."""
    slices, taps = _counts(spec, shape)
    if spec.taps > taps:
        raise UserError(
            f"box with {spec.taps} taps does not fit into kernels of {taps}; choose fewer", code="MIM-I011"
        )
    return _bank(spec, shape, lambda stream: _taps(slices, taps, spec.taps, stream), sharing=spec.taps)


@per_tensor
def gaussian_bump(spec: config.GaussianBump, shape: Shape) -> Distribution:
    """A Gaussian bump around a random pixel."""
    slices, taps = _counts(spec, shape)
    pixels_TD = _pixels(shape[2:])

    def shapes(stream: Generator) -> Tensor:
        centres_SD = pixels_TD[torch.randint(taps, (slices,), generator=stream)]
        squares_ST = (pixels_TD - centres_SD[:, None]).square().sum(-1)
        return torch.exp(squares_ST / (-2.0 * spec.variance))

    return _bank(spec, shape, shapes, sharing=taps, together=spec.energy == "bank")


@per_tensor
def gaussian_derivatives(spec: config.GaussianDerivatives, shape: Shape) -> Distribution:
    """A random derivative of a centred Gaussian."""
    slices, taps = _counts(spec, shape)
    members_MT = derivative_basis(shape[2:], sigma=spec.sigma, order=spec.order)

    def shapes(stream: Generator) -> Tensor:
        return members_MT[torch.randint(len(members_MT), (slices,), generator=stream)]

    return _bank(spec, shape, shapes, sharing=taps)


def derivative_basis(kernel_size: Shape, *, sigma: float, order: int) -> Tensor:
    """Return the derivatives of a centred Gaussian up to an order, flattened (M, taps), of norm 1.

    ∂^n exp(−x²/2σ²) ∝ He_n(x/σ)·exp(−x²/2σ²) in each dimension, He the probabilists' Hermite polynomials.
    Members that are zero on the kernel's pixels (odd orders on a single one) are left out.
    """
    profiles = [
        [_hermite((torch.arange(side).double() - (side - 1) / 2) / sigma, n) for n in range(order + 1)]
        for side in kernel_size
    ]
    members = []
    for orders in product(range(order + 1), repeat=len(kernel_size)):
        if sum(orders) > order:
            continue
        member = torch.ones((), dtype=torch.float64)
        for dimension, n in enumerate(orders):
            member = member[..., None] * profiles[dimension][n]
        members.append(member.flatten())
    return torch.stack([m / m.norm() for m in members if float(m.norm()) > _ZERO])


def _hermite(x: Tensor, n: int) -> Tensor:
    """Return He_n(x)·exp(−x²/2)."""
    before, now = torch.zeros_like(x), torch.ones_like(x)
    for k in range(n):
        before, now = now, x * now - k * before
    return now * torch.exp(-0.5 * x * x)


def _bank(
    spec: config.Bank, shape: Shape, shapes: Shapes, *, sharing: int, together: bool = False
) -> Distribution:
    """Return the distribution of slices of given shapes, of equal energy and random sign.

    Args:
        spec: The section.
        shape: Stored shape of the weight.
        shapes: Draws the shapes (slices, taps), of any norm.
        sharing: Largest number of taps with one sign; it divides the number of independent values.
        together: Whether the energy is that of the mean slice; otherwise of each.
    """
    slices, taps = _counts(spec, shape)
    norm = spec.gain * math.sqrt(ENERGY / max(shape[1], 1))

    def fill(tensor: Tensor, stream: Generator) -> None:
        shapes_ST = shapes(stream)
        signs_S1 = torch.randint(2, (slices, 1), generator=stream).to(torch.float64) * 2.0 - 1.0
        squares_S1 = shapes_ST.square().sum(1, keepdim=True)
        lengths_S1 = (squares_S1.mean() if together else squares_S1).sqrt()
        tensor.copy_((signs_S1 * norm * shapes_ST / lengths_S1).view(tensor.shape))

    return Distribution(fill, Moments(0.0, norm / math.sqrt(taps), slices * taps / sharing))


def _taps(slices: int, taps: int, count: int, stream: Generator) -> Tensor:
    """Return ones at `count` random taps of each slice."""
    order_ST = torch.rand(slices, taps, dtype=torch.float64, generator=stream).argsort(1)
    return (order_ST < count).to(torch.float64)


def _counts(spec: config.Bank, shape: Shape) -> tuple[int, int]:
    """Return the number of slices, a channel of a filter each, and of taps in one."""
    if len(shape) not in _SIDES:
        raise UserError(
            f"{spec.type_name()} fills the filters of convolutions, and this tensor has shape {shape}; "
            "narrow `match`, e.g. `kind: conv`",
            code="MIM-I012",
        )
    return shape[0] * shape[1], math.prod(shape[2:])


def _pixels(kernel_size: Shape) -> Tensor:
    """Return the coordinates of a kernel's taps (taps, dimensions)."""
    grids = torch.meshgrid(*(torch.arange(side).double() for side in kernel_size), indexing="ij")
    return torch.stack([grid.flatten() for grid in grids], dim=1)
