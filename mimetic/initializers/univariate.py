"""Distributions of single tensors: those of `torch.nn.init` under their own names, and others of the kind.

A distribution pairs torch's own implementation with the mean and the standard deviation in closed form. Fans
are torch's: the second and the first side of the stored shape, each times the pixels of the kernel.
"""

import math

from torch import Generator, Tensor
from torch.nn import init

from mimetic.covariance.context import Context
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers import config
from mimetic.initializers.distributions import Distribution, Shape, check_dimensions, independent, per_tensor
from mimetic.initializers.normal import normal_, trunc_normal_, trunc_normal_moments
from mimetic.initializers.resolved import Moments, ResolvedInit
from mimetic.streams import keyed_global_rng
from mimetic.threads import one_thread


@per_tensor
def uniform(spec: config.Uniform, shape: Shape) -> Distribution:
    """U(a, b)."""
    if spec.a > spec.b:
        raise UserError(f"uniform needs a ≤ b, but a is {spec.a} and b is {spec.b}", code="MIM-I002")
    return _uniform(shape, spec.a, spec.b)


@per_tensor
def normal(spec: config.Normal, shape: Shape) -> Distribution:
    """N(mean, std²)."""
    return _normal(shape, spec.std, mean=spec.mean)


@per_tensor
def scaled_residual(spec: config.ScaledResidual, shape: Shape) -> Distribution:
    """N(0, std² / (branches·layers))."""
    return _normal(shape, spec.std / math.sqrt(spec.branches * spec.layers))


@per_tensor
def trunc_normal(spec: config.TruncNormal, shape: Shape) -> Distribution:
    """N(mean, std²) cut at a and b."""
    mean, std = trunc_normal_moments(spec.mean, spec.std, lower=spec.a, upper=spec.b)

    def fill(tensor: Tensor, stream: Generator) -> None:
        trunc_normal_(tensor, spec.mean, spec.std, lower=spec.a, upper=spec.b, generator=stream)

    return Distribution(fill, independent(shape, std, mean=mean), elementwise=True)


@per_tensor
def constant(spec: config.Constant, _shape: Shape) -> Distribution:
    """One value."""
    return _constant(spec.value)


@per_tensor
def ones(_spec: config.Ones, _shape: Shape) -> Distribution:
    """Ones."""
    return _constant(1.0)


@per_tensor
def zeros(_spec: config.Zeros, _shape: Shape) -> Distribution:
    """Zeros."""
    return _constant(0.0)


@per_tensor
def eye(spec: config.Eye, shape: Shape) -> Distribution:
    """The identity."""
    check_dimensions(spec, shape, (2,))
    return Distribution(lambda tensor, _: init.eye_(tensor), _ones_among(math.prod(shape), min(shape)))


def dirac(spec: config.Dirac, site: Site, context: Context) -> ResolvedInit:
    """Filters that pass their channel through, in each group of the layer."""
    own = 1 if site.geometry is None else site.geometry.groups
    return _dirac(spec if spec.groups else spec.model_copy(update={"groups": own}), site, context)


@per_tensor
def _dirac(spec: config.Dirac, shape: Shape) -> Distribution:
    check_dimensions(spec, shape, (3, 4, 5))
    groups = spec.groups or 1
    if shape[0] % groups:
        raise UserError(
            f"dirac with groups {groups} needs output channels divisible by it, not {shape[0]}",
            code="MIM-I003",
        )
    count = groups * min(shape[0] // groups, shape[1])
    return Distribution(lambda tensor, _: init.dirac_(tensor, groups), _ones_among(math.prod(shape), count))


@per_tensor
def xavier_uniform(spec: config.XavierUniform, shape: Shape) -> Distribution:
    """U(±gain·√(6 / (fan_in + fan_out)))."""
    bound = math.sqrt(3.0) * (spec.gain * math.sqrt(2.0 / max(1, sum(fans(spec, shape)))))
    return _uniform(shape, -bound, bound)


@per_tensor
def xavier_normal(spec: config.XavierNormal, shape: Shape) -> Distribution:
    """N(0, gain²·2 / (fan_in + fan_out))."""
    return _normal(shape, spec.gain * math.sqrt(2.0 / max(1, sum(fans(spec, shape)))))


@per_tensor
def kaiming_uniform(spec: config.KaimingUniform, shape: Shape) -> Distribution:
    """U(±gain·√(3 / fan))."""
    bound = math.sqrt(3.0) * _kaiming_std(spec, shape)
    return _uniform(shape, -bound, bound)


@per_tensor
def kaiming_normal(spec: config.KaimingNormal, shape: Shape) -> Distribution:
    """N(0, gain² / fan)."""
    return _normal(shape, _kaiming_std(spec, shape))


@per_tensor
def orthogonal(spec: config.Orthogonal, shape: Shape) -> Distribution:
    """A matrix whose shorter side is orthonormal, times the gain."""
    check_dimensions(spec, shape, range(2, 9))
    long = max(shape[0], math.prod(shape[1:]))
    short = math.prod(shape) // max(long, 1)
    # The degrees of freedom of `short` orthonormal vectors in `long` dimensions.
    draws = max(1.0, long * short - short * (short + 1) / 2)

    def fill(tensor: Tensor, stream: Generator) -> None:
        with one_thread():  # the bits of a QR decomposition depend on the number of threads
            init.orthogonal_(tensor, spec.gain, generator=stream)

    return Distribution(fill, Moments(0.0, spec.gain / math.sqrt(max(long, 1)), draws))


@per_tensor
def sparse(spec: config.Sparse, shape: Shape) -> Distribution:
    """Columns of N(0, std²), a fraction of whose entries is zero."""
    check_dimensions(spec, shape, (2,))
    nonzero = 1.0 - math.ceil(spec.sparsity * shape[0]) / max(shape[0], 1)

    def fill(tensor: Tensor, stream: Generator) -> None:
        # torch places the zeros by the global stream, whatever generator it is given.
        with keyed_global_rng(stream.initial_seed(), "zeros"):
            init.sparse_(tensor, spec.sparsity, spec.std, generator=stream)

    return Distribution(fill, Moments(0.0, spec.std * math.sqrt(nonzero), nonzero * math.prod(shape)))


def fans(spec: config.Init, shape: Shape) -> tuple[int, int]:
    """Return torch's (fan_in, fan_out) of a stored shape.

    Raises:
        UserError: If the tensor has fewer than two dimensions.
    """
    check_dimensions(spec, shape, range(2, 9))
    pixels = math.prod(shape[2:])
    return shape[1] * pixels, shape[0] * pixels


def _kaiming_std(spec: config.KaimingUniform | config.KaimingNormal, shape: Shape) -> float:
    fan_in, fan_out = fans(spec, shape)
    gain = init.calculate_gain(spec.nonlinearity, spec.a)
    return gain / math.sqrt(max(1, fan_in if spec.mode == "fan_in" else fan_out))


def _uniform(shape: Shape, low: float, high: float) -> Distribution:
    return Distribution(
        lambda tensor, stream: init.uniform_(tensor, low, high, generator=stream),
        independent(shape, (high - low) / math.sqrt(12.0), mean=0.5 * (low + high)),
        elementwise=True,
    )


def _normal(shape: Shape, std: float, *, mean: float = 0.0) -> Distribution:
    return Distribution(
        lambda tensor, stream: normal_(tensor, mean, std, generator=stream),
        independent(shape, std, mean=mean),
        elementwise=True,
    )


def _constant(value: float) -> Distribution:
    return Distribution(lambda tensor, _: tensor.fill_(value), Moments(value, 0.0, 0.0), elementwise=True)


def _ones_among(count: int, ones: int) -> Moments:
    """Return the moments of a fixed number of ones among zeros."""
    mean = ones / max(count, 1)
    return Moments(mean, math.sqrt(mean * (1.0 - mean)), 0.0)
